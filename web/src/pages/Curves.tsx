// Figures over streams at once, and over prompt length.
import { useMemo } from "react";
import { useAnswer, type Curve } from "../api";
import { Chart, type Line } from "../chart";
import { Show, Table } from "../parts";
import { build } from "../words";

export function Concurrency() {
  return (
    <Curves path="concurrency" xTitle="streams at once" rate="all streams"
      empty="No concurrency runs yet: give [scenarios] concurrency_levels in the settings."
      comesTo={(curve) => curve.knee === undefined ? "below the first level" : `${curve.knee} streams`}
      head="knee (no refusals, first token ≤ 2 × the lightest)" />
  );
}

export function Scaling() {
  return (
    <Curves path="scaling" xTitle="prompt tokens" rate="one stream"
      empty="No chat runs yet: give [scenarios] prompt_sizes in the settings."
      comesTo={(curve) => curve.flatness === undefined ? "one size only"
        : `${((1 - 2 ** curve.flatness) * 100).toFixed(1)} % of the rate lost per doubling`}
      head="flatness of decoding" />
  );
}

function Curves({ path, xTitle, rate, empty, comesTo, head }: {
  path: string; xTitle: string; rate: string; empty: string; head: string; comesTo: (curve: Curve) => string;
}) {
  const answer = useAnswer<Curve[]>(path);
  return (
    <Show answer={answer} empty={(curves) => !curves.length && empty}>
      {(curves) => (
        <>
          <Drawn curves={curves} figure="first_token_ms" title={`First token over ${xTitle}`} unit="ms" xTitle={xTitle} />
          <Drawn curves={curves} figure="rate" title={`${rate === "one stream" ? "One stream's rate" : "Rate of all streams together"} over ${xTitle}`} unit="tokens/s" xTitle={xTitle} />
          <Table caption="What it comes to" head={["target", "hardware", "model", "build", head]}
            rows={curves.map((c) => ({
              key: `${c.target} ${c.model}`,
              cells: [c.target, c.hardware, c.model, build(c.build), comesTo(c)],
            }))} />
        </>
      )}
    </Show>
  );
}

function Drawn({ curves, figure, title, unit, xTitle }: {
  curves: Curve[]; figure: "first_token_ms" | "rate"; title: string; unit: string; xTitle: string;
}) {
  const lines = useMemo<Line[]>(
    () => curves.slice(0, 8).map((curve) => ({
      name: `${curve.target} · ${curve.model}`,
      points: curve[figure].map((point) => ({ ...point, label: String(point.x) })),
    })),
    [curves, figure],
  );
  return <Chart title={title} unit={unit} xTitle={xTitle} lines={lines} logarithmic />;
}
