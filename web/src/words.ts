// Figures and names as people read them.
const TITLES: Record<string, string> = {
  answer_ms: "time to a full answer (ms)",
  first_token_ms: "first token (ms)",
  decode_rate: "one stream (tokens/s)",
  throughput: "all streams (tokens/s)",
  inter_token_p99_ms: "gap between tokens, p99 (ms)",
  total_ms: "total (ms)",
  load_ms: "load (ms)",
  queue_ms: "wait for a seat (ms)",
  goodput: "within the objective",
  score: "score",
};

export const title = (metric: string): string => TITLES[metric] ?? metric;

/** The same as HIGHER_IS_BETTER of helexa.bench.store.cell. */
const HIGHER_IS_BETTER = new Set(["decode_rate", "throughput", "goodput", "score"]);

/** How much worse, from a change of a metric; below 0 is better. */
export const worse = (metric: string, change: number): number =>
  HIGHER_IS_BETTER.has(metric) ? -change : change;

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
export const figure = (value: number | undefined): string =>
  value === undefined || value === null ? "" : NUMBER.format(value);

const COUNT = new Intl.NumberFormat("en");
export const count = (value: number): string => COUNT.format(value);

export const percent = (share: number): string =>
  `${share > 0 ? "+" : share < 0 ? "−" : "±"}${Math.abs(share * 100).toFixed(1)} %`;

export const date = (at: number): string =>
  `${new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;

const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [["day", 86_400], ["hour", 3_600], ["minute", 60]];

/** How long before `now` (both epoch seconds) that was. */
export function ago(at: number, now: number): string {
  const [unit, length] = STEPS.find(([, seconds]) => now - at >= seconds) ?? ["minute", 60];
  return now < at ? "" : AGO.format(-Math.floor((now - at) / length), unit);
}

/** Builds are told apart by their ends: 0.1.0+38d816a… → 0.1.0+38d816a */
export const build = (name: string): string => name.replace(/\+([0-9a-f]{7})[0-9a-f]+/, "+$1");

const MOST_CHARACTERS = 24;
/** As much of a name as fits below an axis: its two ends. */
export const short = (name: string): string =>
  name.length <= MOST_CHARACTERS ? name : `${name.slice(0, MOST_CHARACTERS / 2)}…${name.slice(1 - MOST_CHARACTERS / 2)}`;

/** A name inside a sentence, which may be in a script that runs the other way and must not turn what follows. */
export const apart = (name: string): string => `\u2068${name}\u2069`;

export const joined = (...names: string[]): string => names.map(apart).join(" · ");
