// Two builds, or two targets, side by side.
import { useAnswer, type Cell, type Compared, type Dimensions, type Verdict } from "../api";
import { Change, Pick, Show, Table } from "../parts";
import { useParam } from "../router";
import { build, figure, percent, title } from "../words";

export function Compare() {
  const dimensions = useAnswer<Dimensions>("dimensions");
  return (
    <Show answer={dimensions} empty={(d) => !d.build.length && "No runs yet."}>
      {(found) => <Sides dimensions={found} />}
    </Show>
  );
}

function Sides({ dimensions }: { dimensions: Dimensions }) {
  const [what, setWhat] = useParam("what");
  const [a, setA] = useParam("a");
  const [b, setB] = useParam("b");
  const targets = what === "targets";
  const options = targets ? dimensions.target : dimensions.build;
  // Without a choice: the last update of a target, not two builds that have nothing in common.
  const cells = useAnswer<Cell[]>("summary");
  const updated = cells.state === "ready" && !targets
    ? cells.value.filter((cell) => cell.verdict).sort((x, y) => y.first_at - x.first_at)[0]?.verdict
    : undefined;
  const left = options.includes(a) ? a : updated?.old_build ?? options[1] ?? "";
  const right = options.includes(b) ? b : updated?.new_build ?? options[0] ?? "";
  const answer = useAnswer<Compared>(left && right && cells.state !== "loading" ? "compare" : null, { a: left, b: right });
  return (
    <>
      <div className="filters">
        <Pick label="Compare" value={what || "builds"} options={["builds", "targets"]} onChange={setWhat} />
        <Pick label="Before" value={left} options={options} onChange={setA} show={build} />
        <Pick label="After" value={right} options={options} onChange={setB} show={build} />
      </div>
      {!left || !right
        ? <div className="notice"><p>There is only one {targets ? "target" : "build"} so far: nothing to compare with.</p></div>
        : <Show answer={answer} empty={(c) => !c.cells.length && `They have no cell in common${targets ? "." : ": choose two builds of one target."}`}>
            {(found) => (
              <>
                <Table caption={`${build(found.b)} against ${build(found.a)}`}
                  head={["target", "model", "scenario", "verdict", "figure", build(found.a), build(found.b), "change"]}
                  rows={worstFirst(found.cells).map((v) => ({
                    key: `${v.target} ${v.model} ${v.scenario}`,
                    cells: [v.target, v.model, v.scenario, <Change verdict={v} />, v.scenario === "everything" ? "all cells together" : title(v.metric),
                      v.scenario === "everything" || !v.samples[0] ? "" : figure(v.old_median),
                      v.scenario === "everything" || !v.samples[1] ? "" : figure(v.new_median),
                      v.word === "broken" || !v.samples[0] || !v.samples[1] ? "" : percent(v.change)],
                  }))} />
                {found.alone.length > 0 &&
                  <details>
                    <summary>{found.alone.length} cells are on one side only and are left out</summary>
                    <ul>{found.alone.map((c) => (
                      <li key={`${c.target} ${c.model} ${c.scenario} ${c.build}`}>{c.target} · {c.model} · {c.scenario}, only {targets ? "there" : `with ${build(c.build)}`}</li>
                    ))}</ul>
                  </details>}
              </>
            )}
          </Show>}
    </>
  );
}

const RANK = ["broken", "slower", "faster", "unsure", "same"];

function worstFirst(cells: Verdict[]): Verdict[] {
  return [...cells].sort((a, b) => RANK.indexOf(a.word) - RANK.indexOf(b.word));
}
