// The bench's API as it is: shapes of helexa.bench.api.shapes and helexa.bench.report.answers.
import { useEffect, useState } from "react";

export interface Summary { n: number; median: number; low: number; high: number; p95: number; p99: number }

export interface Verdict {
  target: string; model: string; scenario: string; metric: string;
  old_build: string; new_build: string;
  word: "slower" | "faster" | "same" | "unsure" | "broken";
  old_median: number; new_median: number; change: number; p: number; effect: number;
  samples: [number, number];
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

export interface History { target: string; model: string; scenario: string; medians: (number | null)[] }

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
export interface Dimensions { target: string[]; model: string[]; scenario: string[]; build: string[]; metrics: string[] }
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
