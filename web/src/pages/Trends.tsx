// A figure over builds, with its interval, and if wanted beside another target.
import { useMemo } from "react";
import { useAnswer, type Dimensions, type Series } from "../api";
import { Chart, MOST, MOST_CHARTS, byModel, colours, type Line } from "../chart";
import { Pick, Rest, Show } from "../parts";
import { useParam } from "../router";
import { apart, build, title } from "../words";

export function Trends() {
  const dimensions = useAnswer<Dimensions>("dimensions");
  return (
    <Show answer={dimensions} empty={(d) => !d.scenario.length && "No runs yet."}>
      {(found) => <Chosen dimensions={found} />}
    </Show>
  );
}

function Chosen({ dimensions }: { dimensions: Dimensions }) {
  const [target, setTarget] = useParam("target");
  const [model, setModel] = useParam("model");
  const [scenario, setScenario] = useParam("scenario");
  const [metric, setMetric] = useParam("metric");
  const [baseline, setBaseline] = useParam("baseline");
  const wanted = scenario || dimensions.scenario.find((s) => s.startsWith("chat:")) || dimensions.scenario[0]!;
  const query = { model, scenario: wanted, metric: metric || "decode_rate" };
  const series = useAnswer<Series[]>("series", { ...query, target });
  const other = useAnswer<Series[]>(baseline ? "series" : null, { ...query, target: baseline });
  return (
    <>
      <div className="filters">
        <Pick label="Target" all="all" value={target} options={dimensions.target} onChange={setTarget} />
        <Pick label="Model" all="all" value={model} options={dimensions.model} onChange={setModel} />
        <Pick label="Scenario" value={wanted} options={dimensions.scenario} onChange={setScenario} />
        <Pick label="Figure" value={query.metric} options={dimensions.metrics} onChange={setMetric} show={title} />
        <Pick label="Baseline" all="none" value={baseline} options={dimensions.target.filter((t) => t !== target)} onChange={setBaseline} />
      </div>
      <Show answer={series} empty={(found) => !found.some((line) => target || line.target !== baseline) && "No good run of that has this figure yet."}>
        {(found) => (
          <>
            {baseline && other.state === "error" && <div className="notice" role="alert"><p>The baseline is not drawn: {other.message}</p></div>}
            {baseline && other.state === "ready" && !other.late && !other.value.length &&
              <p className="notice">No good run of the baseline {apart(baseline)} has this figure.</p>}
            <Drawn series={found.filter((line) => target || line.target !== baseline)}
              baseline={baseline && other.state === "ready" ? other.value : []} />
          </>
        )}
      </Show>
    </>
  );
}

function Drawn({ series, baseline }: { series: Series[]; baseline: Series[] }) {
  const { metric, scenario } = series[0]!;
  const charts = useMemo(() => toCharts(series, baseline), [series, baseline]);
  return (
    <>
      <Rest drawn={MOST_CHARTS} all={charts.length} what="models" />
      <Rest drawn={MOST} all={Math.max(...charts.map((chart) => chart.all))} />
      <div className="charts">
        {charts.slice(0, MOST_CHARTS).map(({ model, lines }) => (
          <Chart key={model} title={`${apart(model)}: ${title(metric)} of ${apart(scenario)} over builds`}
            unit={unitOf(metric)} xTitle="build" lines={lines} categories />
        ))}
      </div>
      <p className="quiet">
        Medians with 95 % intervals, oldest build on the left;{" "}
        {series[0]?.higher_is_better ? "higher is better." : "lower is better."}
      </p>
    </>
  );
}

interface Drawing { model: string; lines: Line[]; all: number }

/** Every build of a line, good or not. */
const builds = (line: Series): { label: string; at?: number }[] => [...line.points, ...(line.failed ?? [])];

/** Builds in the order in which they were first measured, the same for all lines of all charts. */
function toCharts(series: Series[], baseline: Series[]): Drawing[] {
  const first = new Map<string, number>();
  for (const line of [...series, ...baseline]) {
    for (const point of builds(line)) {
      first.set(point.label, Math.min(point.at ?? 0, first.get(point.label) ?? Infinity));
    }
  }
  const order = new Map([...first].sort((a, b) => a[1] - b[1]).map(([label], i) => [label, i]));
  const colour = colours([...series, ...baseline]);
  const placed = <T extends { label: string }>(point: T) => ({ ...point, x: order.get(point.label) ?? 0, label: build(point.label) });
  const line = (from: Series, other: boolean): Line => ({
    name: from.target,
    colour: colour(from.target),
    baseline: other,
    points: from.points.map((point) => placed(point)),
    failed: (from.failed ?? []).map((point) => placed(point)),
  });
  return byModel(series).map(([model, found]) => {
    const drawn = new Set(found.map((s) => s.target));
    const others = baseline.filter((s) => s.model === model && !drawn.has(s.target));
    return {
      model, all: found.length,
      lines: [...found.slice(0, MOST).map((s) => line(s, false)), ...others.map((s) => line(s, true))],
    };
  });
}

function unitOf(metric: string): string {
  if (metric.endsWith("_ms")) return "ms";
  return metric === "decode_rate" || metric === "throughput" ? "tokens/s" : "";
}
