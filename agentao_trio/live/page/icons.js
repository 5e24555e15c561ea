// Small drawings on a 16 × 16 grid, in the colour of the text around them.

import { draw } from "./dom.js";

const PATHS = {
  inbound: "M13 3 5 11M5 5.5V11h5.5",
  outbound: "M3 13 11 5M5.5 5H11v5.5",
  back: "M10 3 5 8l5 5",
  close: "M4 4l8 8M12 4l-8 8",
  search: "M7 3a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm3 7 3.2 3.2",
  copy: "M6 5.5h6.5v7.5H6zM9.5 5.5V3H3.5v7H6",
  check: "M3.5 8.5 6.5 11.5 12.5 4.5",
  spark: "M8 2.2c.5 3.4 2 5 5.6 5.8-3.6.8-5.1 2.4-5.6 5.8C7.5 10.4 6 8.8 2.4 8 6 7.2 7.5 5.6 8 2.2Z",
  warning: "M8 2.5 14 13H2L8 2.5ZM8 6.5v3M8 11.2v.1",
  light: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6ZM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9",
  dark: "M13 9.6A5.4 5.4 0 0 1 6.4 3a5.4 5.4 0 1 0 6.6 6.6Z",
  system: "M2.5 3h11v7.5h-11zM6 13.5h4M8 10.5v3",
};

/** One of the drawings; it is decoration, so the words have to be beside it. */
export function icon(name) {
  return draw(
    "svg",
    { "class": "icon", "viewBox": "0 0 16 16", "aria-hidden": "true" },
    draw("path", { d: PATHS[name] }),
  );
}
