// Quality over time: the small line in a row of the list, and the large plot of the opened call.

import { draw, make, setAttribute, setText, show } from "./dom.js";
import { clock, duration, fixed, grade } from "./format.js";

/** Samples in a small line. */
const SMALL = 60;
const WIDTH = 72;
const HEIGHT = 22;

/** What is plotted: which number, in which range, and from where on somebody should look. */
export const MEASURES = {
  mos: { name: "MOS", unit: "", digits: 2, floor: 1, ceiling: 4.5, ticks: [1, 2, 3, 4], limit: 3.6, below: true },
  jitterMs: { name: "Jitter", unit: "ms", digits: 1, floor: 0, ceiling: 20, limit: 30, below: false },
  lossPct: { name: "Loss", unit: "%", digits: 2, floor: 0, ceiling: 2, limit: 3, below: false },
};

/** "good", "fair" or "bad" for a value of a measure; "" for none. */
function gradeOf(key, value) {
  if (!Number.isFinite(value)) return "";
  if (key === "mos") return grade(value);
  const { limit } = MEASURES[key];
  return value > limit ? "bad" : value > limit / 2 ? "fair" : "good";
}

/** The top of the axis: the usual one, or a round number above the highest value. */
function ceilingOf(measure, values) {
  const highest = Math.max(...values.filter(Number.isFinite), 0);
  if (highest <= measure.ceiling) return measure.ceiling;
  const magnitude = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 5, 10].map((step) => step * magnitude).find((round) => round >= highest);
}

/** A small line with its latest value beside it. */
export class Spark {
  #key;
  #value = make("span", { class: "spark-value" });
  #line = draw("polyline", { class: "spark-line" });
  #area = draw("polygon", { class: "spark-area" });
  #drawn = null;
  #length = 0;

  constructor(key) {
    this.#key = key;
    this.element = make(
      "span",
      { class: "spark" },
      draw(
        "svg",
        { "viewBox": `0 0 ${WIDTH} ${HEIGHT}`, "preserveAspectRatio": "none", "aria-hidden": "true" },
        this.#area,
        this.#line,
      ),
      this.#value,
    );
  }

  draw(series) {
    const latest = series.at(-1);
    if (this.#drawn === (latest ?? undefined) && this.#length === series.length) return;
    this.#drawn = latest;
    this.#length = series.length;
    const key = this.#key;
    const measure = MEASURES[key];
    const values = series.slice(-SMALL).map((sample) => sample[key]);
    const top = ceilingOf(measure, values);
    const points = [];
    values.forEach((value, index) => {
      if (!Number.isFinite(value)) return;
      const x = WIDTH - ((values.length - 1 - index) * WIDTH) / (SMALL - 1);
      const y = HEIGHT - 2 - ((value - measure.floor) / (top - measure.floor)) * (HEIGHT - 4);
      points.push(`${x.toFixed(1)},${y.toFixed(1)}`);
    });
    this.#line.setAttribute("points", points.join(" "));
    const left = points.length ? points[0].split(",")[0] : WIDTH;
    this.#area.setAttribute("points", points.length > 1 ? `${left},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` : "");
    const value = latest ? latest[key] : NaN;
    setAttribute(this.element, "data-grade", gradeOf(key, value));
    setText(this.#value, fixed(value, key === "mos" ? 1 : value >= 10 ? 0 : 1));
  }
}

const PLOT = { width: 640, height: 132, left: 40, right: 12, top: 12, bottom: 20 };

/** One measure of the large plot. */
class Panel {
  #key;
  #grid = draw("g", { class: "grid" });
  #line = draw("polyline", { class: "plot-line" });
  #area = draw("polygon", { class: "plot-area" });
  #limit = draw("line", { class: "limit" });
  #cursor = draw("g", { class: "cursor" });
  #rule = draw("line", { y1: PLOT.top, y2: PLOT.height - PLOT.bottom });
  #dot = draw("circle", { r: 3.5 });
  #value = make("output", { class: "panel-value" });
  #note = make("span", { class: "panel-note" });

  constructor(key) {
    this.#key = key;
    const { name, unit } = MEASURES[key];
    this.#cursor.append(this.#rule, this.#dot);
    this.svg = draw(
      "svg",
      { "viewBox": `0 0 ${PLOT.width} ${PLOT.height}`, "aria-hidden": "true" },
      this.#grid,
      this.#limit,
      this.#area,
      this.#line,
      this.#cursor,
    );
    this.element = make(
      "div",
      { class: "panel" },
      make("div", { class: "panel-head" }, make("span", { class: "panel-name" }, unit ? `${name}, ${unit}` : name), this.#note, this.#value),
      this.svg,
    );
  }

  draw(series, index, x) {
    const key = this.#key;
    const measure = MEASURES[key];
    const values = series.map((sample) => sample[key]);
    const top = ceilingOf(measure, values);
    const inner = PLOT.height - PLOT.top - PLOT.bottom;
    const y = (value) => PLOT.top + inner - ((value - measure.floor) / (top - measure.floor)) * inner;
    const known = series.filter((sample) => Number.isFinite(sample[key]));
    const points = known.map((sample) => `${x(sample.at).toFixed(1)},${y(sample[key]).toFixed(1)}`);
    this.#line.setAttribute("points", points.join(" "));
    const bottom = PLOT.height - PLOT.bottom;
    this.#area.setAttribute(
      "points",
      known.length ? `${x(known[0].at)},${bottom} ${points.join(" ")} ${x(known.at(-1).at)},${bottom}` : "",
    );
    this.#axes(measure.ticks ?? [0, top / 2, top], y, series, x);
    const limited = measure.limit <= top;
    this.#limit.toggleAttribute("hidden", !limited);
    if (limited) {
      for (const [name, at] of [["x1", PLOT.left], ["x2", PLOT.width - PLOT.right], ["y1", y(measure.limit)], ["y2", y(measure.limit)]]) {
        this.#limit.setAttribute(name, at);
      }
    }
    const finite = values.filter(Number.isFinite);
    const worst = measure.below ? Math.min(...finite) : Math.max(...finite);
    setText(this.#note, finite.length ? `${measure.below ? "lowest" : "highest"} ${fixed(worst, measure.digits)}` : "");
    const sample = series[index];
    const value = sample ? sample[key] : NaN;
    setText(this.#value, fixed(value, measure.digits));
    setAttribute(this.element, "data-grade", gradeOf(key, value));
    this.#cursor.toggleAttribute("hidden", !Number.isFinite(value));
    if (Number.isFinite(value)) {
      this.#rule.setAttribute("x1", x(sample.at));
      this.#rule.setAttribute("x2", x(sample.at));
      this.#dot.setAttribute("cx", x(sample.at));
      this.#dot.setAttribute("cy", y(value));
    }
  }

  #axes(ticks, y, series, x) {
    const parts = ticks.flatMap((tick) => [
      draw("line", { x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y(tick), y2: y(tick) }),
      draw("text", { "x": PLOT.left - 8, "y": y(tick) + 3.5, "text-anchor": "end" }, String(Number(tick.toFixed(2)))),
    ]);
    if (series.length > 1) {
      const [from, to] = [series[0].at, series.at(-1).at];
      for (const [part, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
        const at = from + (to - from) * part;
        parts.push(draw("text", { "x": x(at), "y": PLOT.height - 4, "text-anchor": anchor }, clock(at)));
      }
    }
    this.#grid.replaceChildren(...parts);
  }
}

/**
 * The large plot: three panels over one axis of time. The pointer reads a value, and so do the arrow keys: to a screen
 * reader the whole is a slider over the samples, whose value is said in words.
 */
export class QualityPlot {
  #panels = Object.keys(MEASURES).map((key) => new Panel(key));
  #series = [];
  #chosen = null; // the sample under the cursor; null follows the latest
  #when = make("p", { class: "plot-when" });
  #empty = make("p", { class: "quiet-words" }, "No measurements yet. They come about once a second while a call is answered.");
  #slider;

  constructor() {
    this.#slider = make(
      "div",
      {
        "class": "plot",
        "role": "slider",
        "tabindex": "0",
        "aria-label": "Quality over time",
        "aria-orientation": "horizontal",
        "onkeydown": (event) => this.#key(event),
        "onpointermove": (event) => this.#point(event),
        "onpointerleave": () => this.#choose(null),
      },
      ...this.#panels.map((panel) => panel.element),
    );
    this.element = make("div", {}, this.#when, this.#slider, this.#empty);
  }

  /** Draw `series`, which is this call's own and grows at its end. */
  draw(series) {
    this.#series = series;
    if (this.#chosen && this.#chosen.at < (series[0]?.at ?? Infinity)) this.#chosen = null;
    this.#redraw();
  }

  /** Another call: follow its latest sample. */
  reset() {
    this.#chosen = null;
  }

  #redraw() {
    const series = this.#series;
    show(this.#slider, series.length > 0);
    show(this.#when, series.length > 0);
    show(this.#empty, series.length === 0);
    if (!series.length) return;
    const index = this.#index();
    const from = series[0].at;
    const span = Math.max(series.at(-1).at - from, 1000);
    const x = (at) => PLOT.left + ((at - from) / span) * (PLOT.width - PLOT.left - PLOT.right);
    for (const panel of this.#panels) panel.draw(series, index, x);
    const sample = series[index];
    const when = clock(sample.at);
    setText(this.#when, this.#chosen ? `At ${when}` : `Latest, ${when} · ${duration(span / 1000)} shown`);
    setAttribute(this.#slider, "aria-valuemin", 1);
    setAttribute(this.#slider, "aria-valuemax", series.length);
    setAttribute(this.#slider, "aria-valuenow", index + 1);
    setAttribute(
      this.#slider,
      "aria-valuetext",
      `${when}: MOS ${fixed(sample.mos, 2)}, jitter ${fixed(sample.jitterMs)} milliseconds, loss ${fixed(sample.lossPct, 2)} per cent`,
    );
  }

  #index() {
    const index = this.#chosen ? this.#series.indexOf(this.#chosen) : -1;
    return index < 0 ? this.#series.length - 1 : index;
  }

  #choose(sample) {
    if (sample === this.#chosen) return;
    this.#chosen = sample;
    this.#redraw();
  }

  #key(event) {
    const last = this.#series.length - 1;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -last, End: last };
    if (!(event.key in steps) || last < 0) return;
    event.preventDefault();
    const index = Math.min(last, Math.max(0, this.#index() + steps[event.key]));
    this.#choose(index === last ? null : this.#series[index]);
  }

  #point(event) {
    const box = this.#panels[0].svg.getBoundingClientRect();
    const series = this.#series;
    if (!series.length || !box.width) return;
    const left = (PLOT.left / PLOT.width) * box.width;
    const inner = ((PLOT.width - PLOT.left - PLOT.right) / PLOT.width) * box.width;
    const part = Math.min(1, Math.max(0, (event.clientX - box.left - left) / inner));
    const at = series[0].at + part * (series.at(-1).at - series[0].at);
    let nearest = series[0];
    for (const sample of series) if (Math.abs(sample.at - at) < Math.abs(nearest.at - at)) nearest = sample;
    this.#choose(nearest);
  }
}
