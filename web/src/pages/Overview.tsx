// The newest figures of every cell, and what changed with the build.
import { useMemo, type ReactNode } from "react";
import { linesOf, spotsOf, useAnswer, type Line, type Overview as Answered, type Spot, type Verdict } from "../api";
import { Link, Pick, Rest, Show, Standing, Table, When, ofCell, stillFailing } from "../parts";
import { ChangeMap, Spark } from "../pictures";
import { useParam } from "../router";
import { apart, build, count, figure, joined, percent, title } from "../words";

const MOST = 6;
const SHOWN = ["first_token_ms", "decode_rate", "throughput", "load_ms"];

export function Overview() {
  const [target, setTarget] = useParam("target");
  const [model, setModel] = useParam("model");
  const answer = useAnswer<Answered>("overview", { target, model });
  return (
    <Show answer={answer} empty={({ names }) => !names.target.length && "No runs yet: run `helexa bench once`."}>
      {(found) => (
        <>
          <div className="filters">
            <Pick label="Target" all="all" value={target} options={found.names.target} onChange={setTarget} />
            <Pick label="Model" all="all" value={model} options={found.names.model} onChange={setModel} />
          </div>
          <Cells found={found} />
        </>
      )}
    </Show>
  );
}

function Cells({ found }: { found: Answered }) {
  const cells = useMemo(() => spotsOf(found), [found]);
  const lines = useMemo(() => linesOf(found, cells), [found, cells]);
  if (!cells.length) return <div className="notice"><p>Nothing was measured that fits.</p></div>;
  return (
    <>
      <Failing cells={cells.filter(stillFailing)} />
      <Regressions worse={found.worse} all={found.worse_count} cells={cells} />
      {cells.some((cell) => cell.verdict || cell.dead) && <ChangeMap cells={cells} to={trendOf} />}
      {distinct(lines, "target").map((name) => <Target key={name} cells={lines.filter((cell) => cell.target === name)} />)}
      <Rest drawn={lines.length} all={cells.length} what="cells" />
    </>
  );
}

/** What never worked: no verdict on a change says so. */
function Failing({ cells }: { cells: Spot[] }) {
  if (!cells.length) return null;
  return (
    <section className="notice bad" aria-label="Failing">
      <h2>No run of these is good</h2>
      <ul>{cells.slice(0, MOST).map((cell) => (
        <li key={`${cell.target} ${cell.model} ${cell.scenario}`}>
          <Link to={failures(cell)}>{joined(cell.target, cell.model, cell.scenario)}</Link>: every run fails with {build(cell.build)}
        </li>
      ))}</ul>
      {cells.length > MOST && <p>and {cells.length - MOST} more, marked below</p>}
    </section>
  );
}

const failures = ({ target, model, scenario }: Record<"target" | "model" | "scenario", string>): string =>
  `/runs?${new URLSearchParams({ target, model, scenario, ok: "false" })}`;

function Regressions({ worse, all, cells }: { worse: Verdict[]; all: number; cells: Spot[] }) {
  if (!worse.length) return <Fine cells={cells} />;
  return (
    <section className="notice bad" aria-label="Regressions">
      <h2>Worse than with the build before</h2>
      <ul>{worse.map((v) => <li key={`${v.target} ${v.model} ${v.scenario}`}><Worse verdict={v} /></li>)}</ul>
      {all > worse.length && <p>and {all - worse.length} more, marked below</p>}
    </section>
  );
}

/** How much is known, when nothing is known to be worse. */
function Fine({ cells }: { cells: Spot[] }) {
  const judged = cells.filter((cell) => cell.verdict && !stillFailing(cell));
  const unsure = judged.filter((cell) => cell.verdict?.word === "unsure");
  if (cells.every(stillFailing)) return null;
  if (!judged.length) return <p className="quiet">There is no build before this one: nothing to compare with yet.</p>;
  const why = "too few runs, or they scatter too much";
  if (unsure.length === judged.length) {
    return <p className="quiet">? No cell can be judged against the build before it yet: {why}.</p>;
  }
  return (
    <p className="good">
      ✓ Nothing is known to be slower than with the build before it.
      {unsure.length > 0 && (
        <span className="quiet"> {count(unsure.length)} of {count(judged.length)} cells cannot be judged yet: {why}.</span>
      )}
    </p>
  );
}

function Worse({ verdict: v }: { verdict: Verdict }) {
  if (v.word === "broken") {
    return (
      <>
        <Link to={failures(v)}>{joined(v.target, v.model, v.scenario)}</Link>
        : every run fails with {build(v.new_build)}; it worked with {build(v.old_build)}
      </>
    );
  }
  if (v.scenario === "everything") {
    return <><strong>{joined(v.target, v.model)}</strong>: everything together {percent(v.change)}, {build(v.old_build)} → {build(v.new_build)}</>;
  }
  return (
    <>
      <Link to={trend(v.target, v.model, v.scenario, v.metric)}>{joined(v.target, v.model, v.scenario)}</Link>
      : {title(v.metric)} {figure(v.old_median)} → {figure(v.new_median)} ({percent(v.change)})
    </>
  );
}

function Target({ cells }: { cells: Line[] }) {
  const first = cells[0]!;
  const used = SHOWN.filter((name) => cells.some((cell) => name in cell.metrics));
  const builds = [...new Set([...cells].sort((a, b) => b.first_at - a.first_at).map((cell) => build(cell.build)))];
  const several = builds.length > 1;
  const drawn = cells.some((cell) => cell.way.length > 1);
  const figures = (cell: Line) => used.map((name) => {
    const s = cell.metrics[name];
    return s ? <span title={`${figure(s.low)} to ${figure(s.high)}, p95 ${figure(s.p95)}`}>{figure(s.median)}</span> : "";
  });
  const caption = `${apart(first.target)}, ${several ? `not all measured with the newest build ${builds[0]}` : `build ${builds[0]}`}, last measured `;
  return (
    <section>
      <h2><bdi>{first.target}</bdi> <small>{first.hardware}</small></h2>
      <Table
        caption={<>{caption}<When at={Math.max(...cells.map((c) => c.last_at))} since /></>}
        head={["scenario", "change", ...(drawn ? ["over builds"] : []), ...(several ? ["build"] : []),
          ...used.map((name) => ({ title: title(name), number: true })), { title: "runs", number: true }]}
        rows={cells.map((cell, i) => ({
          key: `${cell.model} ${cell.scenario}`,
          group: cell.model === cells[i - 1]?.model ? undefined : cell.model,
          cells: [
            <Link to={trendOf(cell)}>{cell.scenario}</Link>,
            <Standing cell={cell} />,
            ...(drawn ? [<Spark medians={cell.way} word={ofCell(cell).tone} />] : []),
            ...(several ? [build(cell.build)] : []),
            ...figures(cell),
            `${cell.ok_runs}${cell.failed_runs ? ` + ${cell.failed_runs} failed` : ""}${cell.refused ? `, ${cell.refused} refused` : ""}`,
          ] satisfies ReactNode[],
        }))}
      />
    </section>
  );
}

export function distinct<K extends "target" | "model">(cells: Record<K, string>[], name: K): string[] {
  return [...new Set(cells.map((cell) => cell[name]))];
}

const trendOf = (cell: Spot): string => trend(cell.target, cell.model, cell.scenario, cell.primary);

export function trend(target: string, model: string, scenario: string, metric: string): string {
  return `/trends?${new URLSearchParams({ target, model, scenario, metric })}`;
}
