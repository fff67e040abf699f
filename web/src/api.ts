// The bench's API as it is: shapes of helexa.bench.api.shapes and helexa.bench.report.answers.
import { useEffect, useState } from "react";

export interface Summary { n: number; median: number; low: number; high: number; p95: number; p99: number }

export interface Verdict {
  target: string; model: string; scenario: string; metric: string;
  old_build: string; new_build: string;
  word: "slower" | "faster" | "same" | "unsure";
  old_median: number; new_median: number; change: number; p: number; effect: number;
  samples: [number, number];
}

export interface Cell {
  target: string; hardware: string; kind: string; model: string; scenario: string; build: string;
  engine: string; quant: string; first_at: number; last_at: number;
  ok_runs: number; failed_runs: number; primary: string;
  metrics: Record<string, Summary>; verdict?: Verdict; refused?: number; requests?: number;
}

export interface Point { x: number; label: string; n: number; median: number; low: number; high: number; at?: number }

export interface Series {
  target: string; hardware: string; model: string; scenario: string; metric: string;
  higher_is_better: boolean; points: Point[];
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
export interface Dimensions { target: string[]; model: string[]; scenario: string[]; build: string[]; metrics: string[] }
export interface CellKey { target: string; build: string; model: string; scenario: string }
export interface Compared { a: string; b: string; cells: Verdict[]; alone: CellKey[] }

export type Answer<T> =
  | { state: "loading" }
  | { state: "error"; message: string; status: number }
  | { state: "ready"; value: T };

export type Query = Record<string, string | undefined>;

export function url(path: string, query: Query = {}): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) given.set(name, value);
  const text = given.toString();
  return `/api/${path}${text ? `?${text}` : ""}`;
}

/** Ask the API; asks again when the question changes, and forgets answers that come too late. */
export function useAnswer<T>(path: string | null, query: Query = {}): Answer<T> {
  const asked = path === null ? null : url(path, query);
  const [answer, setAnswer] = useState<Answer<T>>({ state: "loading" });
  useEffect(() => {
    if (asked === null) return;
    const gone = new AbortController();
    setAnswer({ state: "loading" });
    ask<T>(asked, gone.signal).then((found) => !gone.signal.aborted && setAnswer(found));
    return () => gone.abort();
  }, [asked]);
  return answer;
}

async function ask<T>(asked: string, signal: AbortSignal): Promise<Answer<T>> {
  try {
    const response = await fetch(asked, { signal });
    const body = await response.json();
    if (response.ok) return { state: "ready", value: body as T };
    const message = body?.error?.message ?? `the bench answered ${response.status}`;
    return { state: "error", message, status: response.status };
  } catch (error) {
    return { state: "error", message: `the bench does not answer (${String(error)})`, status: 0 };
  }
}
