// The bench's API as it is: shapes of helexa.bench.api.shapes and helexa.bench.report.answers.
import { useEffect, useState } from "react";

export interface Summary { n: number; median: number; low: number; high: number; p95: number; p99: number }

/** As much of a verdict as is told in a few signs; where nothing more is drawn, nothing more comes. */
export interface Judged {
  word: "slower" | "faster" | "same" | "unsure" | "broken";
  change: number; samples: [number, number];
  old_median?: number | undefined; new_median?: number | undefined; p?: number | undefined;
}

export interface Verdict extends Judged {
  target: string; model: string; scenario: string; metric: string;
  old_build: string; new_build: string;
  old_median: number; new_median: number; p: number; effect: number;
}

export interface Cell {
  target: string; hardware: string; kind: string; model: string; scenario: string; build: string;
  engine: string; quant: string; first_at: number; last_at: number;
  ok_runs: number; failed_runs: number; primary: string;
  metrics: Record<string, Summary>; verdict?: Verdict; refused?: number; requests?: number;
  /** Every run failed, and not because the target was full. */
  dead?: boolean;
}

export interface Point { x: number; label: string; n: number; median: number; low: number; high: number; at?: number }

export interface Series {
  target: string; hardware: string; model: string; scenario: string; metric: string;
  higher_is_better: boolean; points: Point[];
  /** Builds of which every run failed. */
  failed?: { label: string; at: number }[];
}

type Column = (number | null)[];
type Figures = Record<"median" | "low" | "high" | "p95", Column>;

/** The newest build of everything in columns: shapes of helexa.bench.report.overview. */
export interface Overview {
  names: Record<"target" | "hardware" | "model" | "scenario" | "primary" | "build", string[]>;
  cells: Record<"target" | "model" | "scenario" | "build", number[]> & { word: (Judged["word"] | "new" | "failing" | "no figure")[]; change: Column };
  rows: Record<"first_at" | "last_at" | "ok_runs" | "failed_runs" | "refused", number[]> & Record<"old_median" | "new_median" | "p", Column>
    & { samples: ([number, number] | null)[]; figures: Record<string, Figures>; ways: Column[] };
  worse: Verdict[]; worse_count: number;
}

/** A cell as the overview's map shows it. */
export interface Spot {
  target: string; hardware: string; model: string; scenario: string; build: string; primary: string;
  dead: boolean; verdict?: Judged;
}

/** A cell as a row of the overview. */
export interface Line extends Spot {
  first_at: number; last_at: number; ok_runs: number; failed_runs: number; refused: number;
  metrics: Record<string, { median: number; low: number; high: number; p95: number }>;
  way: Column;
}

export function spotsOf({ names, cells, rows }: Overview): Spot[] {
  const name = (kind: "target" | "model" | "scenario" | "build", i: number) => names[kind][cells[kind][i]!]!;
  return cells.word.map((word, i) => {
    const spot: Spot = {
      target: name("target", i), hardware: names.hardware[cells.target[i]!]!, model: name("model", i),
      scenario: name("scenario", i), build: name("build", i), primary: names.primary[cells.scenario[i]!]!,
      dead: word === "failing" || word === "broken",
    };
    if (word !== "new" && word !== "failing") {
      const none = word === "no figure";
      spot.verdict = {
        word: none ? "unsure" : word, change: cells.change[i] ?? 0, samples: none ? [0, 0] : rows.samples[i] ?? [1, 1],
        old_median: rows.old_median[i] ?? undefined, new_median: rows.new_median[i] ?? undefined, p: rows.p[i] ?? undefined,
      };
    }
    return spot;
  });
}

/** The first of the spots, with all that came of them. */
export function linesOf({ rows }: Overview, spots: Spot[]): Line[] {
  return rows.ways.map((way, i) => {
    const metrics: Line["metrics"] = {};
    for (const [metric, { median, low, high, p95 }] of Object.entries(rows.figures)) {
      const value = median[i];
      if (typeof value === "number") metrics[metric] = { median: value, low: low[i]!, high: high[i]!, p95: p95[i]! };
    }
    return {
      ...spots[i]!, metrics, way, first_at: rows.first_at[i]!, last_at: rows.last_at[i]!,
      ok_runs: rows.ok_runs[i]!, failed_runs: rows.failed_runs[i]!, refused: rows.refused[i]!,
    };
  });
}

export interface Curve {
  target: string; hardware: string; model: string; build: string;
  first_token_ms: Point[]; rate: Point[];
  refused?: Record<string, number>; knee?: number; flatness?: number;
}

export interface Run {
  id: number; at: number; scenario: string; score?: number; key?: string;
  source: Record<string, unknown> & { target: string; build: string; gpus?: string };
  model: Record<string, unknown> & { model: string };
  result: Record<string, unknown> & {
    ok?: boolean; error?: string; first_token_ms?: number; decode_rate?: number; artifact?: string;
    total_ms?: number; prompt_tokens?: number; output_tokens?: number;
  };
  before?: Record<string, unknown>; after?: Record<string, unknown>;
}

export interface Page { count: number; runs: Run[] }
export interface Dimensions { target: string[]; model: string[]; scenario: string[]; build: string[]; metrics: string[]; updated?: [string, string] }
export interface CellKey { target: string; build: string; model: string; scenario: string }
export interface Compared { a: string; b: string; cells: Verdict[]; alone: CellKey[] }

/**
 * `late`: the value answers the question before this one, whose answer is on its way.
 * `trouble`: the last attempt to renew the value failed.
 */
export type Answer<T> =
  | { state: "loading" }
  | { state: "error"; message: string; status: number }
  | { state: "ready"; value: T; late?: boolean; trouble?: string };

export type Query = Record<string, string | undefined>;

export function url(path: string, query: Query = {}): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) given.set(name, value);
  const text = given.toString();
  return `/api/${path}${text ? `?${text}` : ""}`;
}

const RENEW_MS = 60_000;
const RETRY_MS = 5_000;
/**
 * For the head of an answer, and again for its body: a machine that has vanished refuses nothing,
 * and the browser alone would wait for many minutes. A large store on a busy machine takes a while.
 */
const DEADLINE_MS = 60_000;

/**
 * Ask the API; asks again when the question changes, every minute while somebody looks, and soon
 * when it failed. What is shown stays until there is something newer: nothing jumps, and whoever
 * is in the middle of a table keeps their place.
 */
export function useAnswer<T>(path: string | null, query: Query = {}): Answer<T> {
  const asked = path === null ? null : url(path, query);
  const [answer, setAnswer] = useState<Answer<T>>({ state: "loading" });
  useEffect(() => {
    if (asked === null) return;
    const gone = new AbortController();
    let timer = 0;
    let last = "";
    let lost = false;
    let asking = false;
    const renew = async () => {
      clearTimeout(timer);
      if (document.hidden || asking) return;
      asking = true;
      const [found, text] = await ask<T>(asked, gone.signal);
      asking = false;
      if (gone.signal.aborted) return;
      const same = found.state === "ready" && text === last && !lost;
      const renewed = last !== "";
      if (!same) setAnswer((old) => after(old, found, renewed));
      lost = found.state !== "ready";
      if (!lost) last = text;
      timer = window.setTimeout(renew, lost ? RETRY_MS : RENEW_MS);
    };
    setAnswer((old) => (old.state === "ready" ? { ...old, late: true } : { state: "loading" }));
    void renew();
    document.addEventListener("visibilitychange", renew);
    return () => {
      gone.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", renew);
    };
  }, [asked]);
  return answer;
}

/** What is shown once `found` has come; a value that could not be renewed stays. */
function after<T>(old: Answer<T>, found: Answer<T>, renewed: boolean): Answer<T> {
  if (found.state === "error" && renewed && old.state === "ready") {
    return { state: "ready", value: old.value, trouble: found.message };
  }
  return found;
}

async function ask<T>(asked: string, gone: AbortSignal): Promise<[Answer<T>, string]> {
  const late = new AbortController();
  let deadline = 0;
  const wait = () => {
    clearTimeout(deadline);
    deadline = window.setTimeout(() => late.abort(`nothing came for ${DEADLINE_MS / 1000} s`), DEADLINE_MS);
  };
  try {
    wait();
    const response = await fetch(asked, { signal: AbortSignal.any([gone, late.signal]) });
    wait();
    const text = await response.text();
    const body = JSON.parse(text);
    if (response.ok) return [{ state: "ready", value: body as T }, text];
    const message = body?.error?.message ?? `the bench answered ${response.status}`;
    return [{ state: "error", message, status: response.status }, text];
  } catch (error) {
    return [{ state: "error", message: `the bench does not answer (${String(error)})`, status: 0 }, ""];
  } finally {
    clearTimeout(deadline);
  }
}
