// Figures over streams at once, and over prompt length.
import { useMemo } from "react";
import { useAnswer, type Curve } from "../api";
import { Chart, MOST, MOST_CHARTS, byModel, colours, type Line } from "../chart";
import { Pick, Rest, Show, Table } from "../parts";
import { useParam } from "../router";
import { apart, build } from "../words";
import { distinct } from "./Overview";

export function Concurrency() {
  return (
    <Curves path="concurrency" xTitle="streams at once" rate="all streams"
      empty="No concurrency runs yet: give [scenarios] concurrency_levels in the settings."
      comesTo={(curve) => !curve.first_token_ms.length ? NONE : curve.knee === undefined ? "below the first level" : `${curve.knee} streams`}
      head="knee (no refusals, first token ≤ 2 × the lightest)" />
  );
}

export function Scaling() {
  return (
    <Curves path="scaling" xTitle="prompt tokens" rate="one stream"
      empty="No chat runs yet: give [scenarios] prompt_sizes in the settings."
      comesTo={(curve) => !curve.rate.length ? NONE : curve.flatness === undefined ? "one size only"
        : `${((1 - 2 ** curve.flatness) * 100).toFixed(1)} % of the rate lost per doubling`}
      head="flatness of decoding" />
  );
}

const NONE = "no good run";

interface Words { xTitle: string; rate: string; head: string; comesTo: (curve: Curve) => string }

function Curves({ path, empty, ...words }: Words & { path: string; empty: string }) {
  const answer = useAnswer<Curve[]>(path);
  return (
    <Show answer={answer} empty={(curves) => !curves.length && empty}>
      {(curves) => <Chosen all={curves} {...words} />}
    </Show>
  );
}

function Chosen({ all, xTitle, rate, head, comesTo }: Words & { all: Curve[] }) {
  const [target, setTarget] = useParam("target");
  const [model, setModel] = useParam("model");
  const curves = useMemo(
    () => all.filter((c) => (!target || c.target === target) && (!model || c.model === model)),
    [all, target, model],
  );
  const charts = useMemo(() => byModel(curves), [curves]);
  const colour = useMemo(() => colours(all), [all]);
  return (
    <>
      <div className="filters">
        <Pick label="Target" all="all" value={target} options={distinct(all, "target")} onChange={setTarget} />
        <Pick label="Model" all="all" value={model} options={distinct(all, "model")} onChange={setModel} />
      </div>
      {curves.length === 0 ? <div className="notice"><p>Nothing was measured that fits.</p></div> : (
        <>
          <Rest drawn={MOST_CHARTS} all={charts.length} what="models" />
          <Rest drawn={MOST} all={Math.max(...charts.map(([, found]) => found.length))} />
          {charts.slice(0, MOST_CHARTS).map(([name, found]) => (
            <section key={name}>
              <h2><bdi>{name}</bdi></h2>
              <div className="charts">
                <Drawn curves={found} figure="first_token_ms" title={`First token over ${xTitle}`} unit="ms" xTitle={xTitle} colour={colour} />
                <Drawn curves={found} figure="rate" title={`${rate === "one stream" ? "One stream's rate" : "Rate of all streams together"} over ${xTitle}`} unit="tokens/s" xTitle={xTitle} colour={colour} />
              </div>
            </section>
          ))}
          <Table caption="What it comes to" head={["target", "hardware", "model", "build", head]}
            rows={curves.map((c) => ({
              key: `${c.target} ${c.model}`,
              cells: [c.target, c.hardware, c.model, build(c.build), comesTo(c)],
            }))} />
        </>
      )}
    </>
  );
}

function Drawn({ curves, figure, title, unit, xTitle, colour }: {
  curves: Curve[]; figure: "first_token_ms" | "rate"; title: string; unit: string; xTitle: string;
  colour: (target: string) => number | undefined;
}) {
  const lines = useMemo<Line[]>(
    () => curves.slice(0, MOST).map((curve) => ({
      name: curve.target,
      colour: colour(curve.target),
      points: curve[figure].map((point) => ({ ...point, label: String(point.x) })),
    })),
    [curves, figure, colour],
  );
  if (lines.every((line) => !line.points.length)) return <div className="notice"><p>{title}: {NONE} yet.</p></div>;
  return <Chart title={title} whole={`${apart(curves[0]!.model)}: ${title}`} unit={unit} xTitle={xTitle} lines={lines} logarithmic />;
}
