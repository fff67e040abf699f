// Two builds, or two targets, side by side.
import { useAnswer, type Compared, type Dimensions } from "../api";
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
  const left = options.includes(a) ? a : options[1] ?? "";
  const right = options.includes(b) ? b : options[0] ?? "";
  const answer = useAnswer<Compared>(left && right ? "compare" : null, { a: left, b: right });
  return (
    <>
      <div className="filters">
        <Pick label="Compare" value={what || "builds"} options={["builds", "targets"]} onChange={setWhat} />
        <Pick label="Before" value={left} options={options} onChange={setA} show={build} />
        <Pick label="After" value={right} options={options} onChange={setB} show={build} />
      </div>
      {!left || !right
        ? <div className="notice"><p>There is only one {targets ? "target" : "build"} so far: nothing to compare with.</p></div>
        : <Show answer={answer} empty={(c) => !c.cells.length && "They have no cell in common."}>
            {(found) => (
              <>
                <Table caption={`${build(found.b)} against ${build(found.a)}`}
                  head={["target", "model", "scenario", "figure", build(found.a), build(found.b), "change", "verdict"]}
                  rows={found.cells.map((v) => ({
                    key: `${v.target} ${v.model} ${v.scenario}`,
                    cells: [v.target, v.model, v.scenario, v.scenario === "everything" ? "all cells together" : title(v.metric),
                      v.scenario === "everything" ? "" : figure(v.old_median), v.scenario === "everything" ? "" : figure(v.new_median),
                      percent(v.change), <Change verdict={v} />],
                  }))} />
                {found.alone.length > 0 &&
                  <p className="quiet">{found.alone.length} cells are on one side only and are left out.</p>}
              </>
            )}
          </Show>}
    </>
  );
}
