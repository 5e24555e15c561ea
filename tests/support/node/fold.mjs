// Folds lines of [method, …arguments] with the page's own module, and says after each what is known.
//   node fold.mjs <path of fold.js>
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { Fold } = await import(pathToFileURL(process.argv[2]));
let fold = new Fold();
createInterface({ input: process.stdin }).on("line", (line) => {
  const [method, ...args] = JSON.parse(line);
  if (method === "new") fold = new Fold();
  const verdict = method === "new" ? null : fold[method](...args);
  console.log(JSON.stringify([verdict, fold.epoch, Object.fromEntries(fold.calls)]));
});
