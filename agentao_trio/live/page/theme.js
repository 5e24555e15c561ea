// Light, dark, or as the system has it: one button that goes round, and a choice that is remembered.

import { icon } from "./icons.js";

const CHOICES = ["system", "light", "dark"];
const KEY = "agentao-live-theme";

function remembered() {
  try {
    return localStorage.getItem(KEY) ?? "system";
  } catch {
    return "system"; // storage may be forbidden, and a colour is not worth an error
  }
}

/** Make `button` the switch. */
export function switchThemesWith(button) {
  let choice = CHOICES.includes(remembered()) ? remembered() : "system";
  const apply = () => {
    document.documentElement.dataset.theme = choice;
    button.replaceChildren(icon(choice));
    button.setAttribute("aria-label", `Colours: ${choice === "system" ? "as the system" : choice}. Change`);
    button.title = choice === "system" ? "Colours as the system has them" : `${choice === "dark" ? "Dark" : "Light"} colours`;
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // the choice holds for as long as the page is open
    }
    apply();
  });
  apply();
}
