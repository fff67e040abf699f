// The newest figures of every cell, and what changed with the build.
import { useAnswer, type Cell, type Verdict } from "../api";
import { Change, Link, Pick, Show, Table } from "../parts";
import { useParam } from "../router";
import { build, date, figure, percent, title } from "../words";

const MOST = 8;
const SHOWN = ["first_token_ms", "decode_rate", "throughput", "load_ms"];

export function Overview() {
  const answer = useAnswer<Cell[]>("summary");
  const [target, setTarget] = useParam("target");
  const [model, setModel] = useParam("model");
  return (
    <Show answer={answer} empty={(cells) => !cells.length && "No runs yet. Run `helexa bench once` and load this page again."}>
      {(cells) => {
        const chosen = cells.filter((c) => (!target || c.target === target) && (!model || c.model === model));
        return (
          <>
            <div className="filters">
              <Pick label="Target" all="all" value={target} options={distinct(cells, "target")} onChange={setTarget} />
              <Pick label="Model" all="all" value={model} options={distinct(cells, "model")} onChange={setModel} />
            </div>
            <Regressions target={target} model={model} />
            {distinct(chosen, "target").map((name) => (
              <Target key={name} cells={chosen.filter((cell) => cell.target === name)} />
            ))}
          </>
        );
      }}
    </Show>
  );
}

function Regressions({ target, model }: { target: string; model: string }) {
  const answer = useAnswer<Verdict[]>("regressions");
  if (answer.state !== "ready") return null;
  const worse = answer.value.filter((v) => (!target || v.target === target) && (!model || v.model === model));
  if (!worse.length) return <p className="good">✓ Nothing is slower than with the build before it.</p>;
  return (
    <section className="notice bad" aria-label="Regressions">
      <h2>Slower than with the build before</h2>
      <ul>{worse.slice(0, MOST).map((v) => <li key={`${v.target} ${v.model} ${v.scenario}`}><Slower verdict={v} /></li>)}</ul>
      {worse.length > MOST && <p>and {worse.length - MOST} more, marked below</p>}
    </section>
  );
}

function Slower({ verdict: v }: { verdict: Verdict }) {
  if (v.scenario === "everything") {
    return <><strong>{v.target} · {v.model}</strong>: everything together {percent(v.change)}, {build(v.old_build)} → {build(v.new_build)}</>;
  }
  return (
    <>
      <Link to={trend(v.target, v.model, v.scenario, v.metric)}>{v.target} · {v.model} · {v.scenario}</Link>
      : {title(v.metric)} {figure(v.old_median)} → {figure(v.new_median)} ({percent(v.change)})
    </>
  );
}

function Target({ cells }: { cells: Cell[] }) {
  const first = cells[0]!;
  const used = SHOWN.filter((name) => cells.some((cell) => name in cell.metrics));
  return (
    <section>
      <h2>{first.target} <small>{first.hardware}</small></h2>
      <Table
        caption={`${first.target}, build ${build(first.build)}, last measured ${date(Math.max(...cells.map((c) => c.last_at)))}`}
        head={["model", "scenario", ...used.map(title), "runs", "change"]}
        rows={cells.map((cell) => ({
          key: `${cell.model} ${cell.scenario}`,
          cells: [
            cell.model,
            <Link to={trend(cell.target, cell.model, cell.scenario, cell.primary)}>{cell.scenario}</Link>,
            ...used.map((name) => {
              const s = cell.metrics[name];
              return s ? <span title={`${figure(s.low)} to ${figure(s.high)}, p95 ${figure(s.p95)}`}>{figure(s.median)}</span> : "";
            }),
            `${cell.ok_runs}${cell.failed_runs ? ` + ${cell.failed_runs} failed` : ""}${cell.refused ? `, ${cell.refused} refused` : ""}`,
            <Change verdict={cell.verdict} />,
          ],
        }))}
      />
    </section>
  );
}

export function distinct<K extends "target" | "model" | "scenario">(cells: Record<K, string>[], name: K): string[] {
  return [...new Set(cells.map((cell) => cell[name]))];
}

export function trend(target: string, model: string, scenario: string, metric: string): string {
  return `/trends?${new URLSearchParams({ target, model, scenario, metric })}`;
}
