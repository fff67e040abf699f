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

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
export const figure = (value: number | undefined): string =>
  value === undefined || value === null ? "" : NUMBER.format(value);

export const percent = (share: number): string =>
  `${share > 0 ? "+" : share < 0 ? "−" : "±"}${Math.abs(share * 100).toFixed(1)} %`;

export const date = (at: number): string =>
  `${new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;

/** Builds are told apart by their ends: 0.1.0+38d816a… → 0.1.0+38d816a */
export const build = (name: string): string => name.replace(/\+([0-9a-f]{7})[0-9a-f]+/, "+$1");
