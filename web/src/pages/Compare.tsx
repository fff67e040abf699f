// Two builds, or two targets, side by side.
import { useAnswer, type Compared, type Dimensions, type Verdict } from "../api";
import { Change, Pick, Show, Table } from "../parts";
import { Shift } from "../pictures";
import { useParam } from "../router";
import { apart, build, count, figure, joined, title } from "../words";

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
  const [old, updated] = dimensions.updated ?? [options[1], options[0]];
  const left = a || (targets ? options[1] : old) || "";
  const right = b || (targets ? options[0] : updated) || "";
  // Whoever chooses one side names both: a link to it shows the same when there are newer builds.
  const other = (value: string) => { setA(""); setB(""); setWhat(value); };
  const answer = useAnswer<Compared>(left && right ? "compare" : null, { a: left, b: right });
  return (
    <>
      <div className="filters">
        <Pick label="Compare" value={what || "builds"} options={["builds", "targets"]} onChange={other} />
        <Pick label="Before" value={left} options={options} onChange={(name) => { setA(name); setB(right); }} show={build} />
        <Pick label="After" value={right} options={options} onChange={(name) => { setA(left); setB(name); }} show={build} />
      </div>
      {!left || !right
        ? <div className="notice"><p>There is only one {targets ? "target" : "build"} so far: nothing to compare with.</p></div>
        : <Show answer={answer} empty={(c) => !c.cells.length && nothing(c, targets)}>
            {(found) => (
              <>
                <Cells found={found} />
                <p className="quiet">
                  Figures are medians. A change is the middle of all pairs of a new run and an old one: where few runs
                  scatter much, it may point another way than they do.
                </p>
                {found.alone.length > 0 &&
                  <details>
                    <summary>{found.alone.length} cells are on one side only and are left out</summary>
                    <ul>{found.alone.map((c) => (
                      <li key={`${c.target} ${c.model} ${c.scenario} ${c.build}`}>{joined(c.target, c.model, c.scenario)}, only {targets ? "there" : `with ${build(c.build)}`}</li>
                    ))}</ul>
                  </details>}
              </>
            )}
          </Show>}
    </>
  );
}

/** Why two sides have nothing to compare; a link may name what is not in the store. */
function nothing({ a, b, alone }: Compared, targets: boolean): string {
  const gone = [...new Set([a, b])].filter((name) => !alone.some((cell) => (targets ? cell.target : cell.build) === name));
  if (gone.length) return `There are no runs of ${gone.map((name) => apart(build(name))).join(" and ")}.`;
  return `They have no cell in common${targets ? "." : ": choose two builds of one target."}`;
}

/** What a browser draws in a second. */
const MOST_ROWS = 2000;

/** The change that fills a bar: the largest there is, within bounds, so that one outlier flattens nothing. */
const LEAST_MOST = 0.1, MOST_MOST = 0.5;

function Cells({ found }: { found: Compared }) {
  const shifts = found.cells.map((v) => Math.abs(v.change)).filter(Number.isFinite);
  const most = Math.min(MOST_MOST, Math.max(LEAST_MOST, ...shifts));
  const number = (text: string) => ({ title: text, number: true });
  const rest = found.cells.length > MOST_ROWS ? `, the worst ${count(MOST_ROWS)} of ${count(found.cells.length)} lines` : "";
  return (
    <Table caption={`${apart(build(found.b))} against ${apart(build(found.a))}${rest}`}
      head={["scenario", "verdict", `better ◂ ${Math.round(most * 100)}\u00a0% ▸ worse`, "figure",
        number(build(found.a)), number(build(found.b))]}
      rows={worstFirst(found.cells).slice(0, MOST_ROWS).map((v, i, all) => {
        const whole = v.scenario === TOGETHER;
        const comparable = v.word !== "broken" && Boolean(v.samples[0] && v.samples[1]);
        return {
          key: `${v.target} ${v.model} ${v.scenario}`,
          group: all[i - 1] && line(all[i - 1]!) === line(v) ? undefined : line(v),
          cells: [whole ? <strong>{v.scenario}</strong> : v.scenario, <Change verdict={v} whole />,
            comparable ? <Shift verdict={v} most={most} /> : "",
            whole ? "all cells together" : title(v.metric),
            whole || !v.samples[0] ? "" : figure(v.old_median),
            whole || !v.samples[1] ? "" : figure(v.new_median)],
        };
      })} />
  );
}

const TOGETHER = "everything";
const ORDER = new Intl.Collator();
const RANK = ["broken", "slower", "faster", "unsure", "same"];
const rank = (verdict: Verdict): number => RANK.indexOf(verdict.word);
const line = (verdict: Verdict): string => joined(verdict.target, verdict.model);

/** Target by target and model by model, those with the worst first; of each, how it did altogether, then the worst. */
function worstFirst(cells: Verdict[]): Verdict[] {
  const worst = new Map<string, number>();
  for (const cell of cells) worst.set(line(cell), Math.min(worst.get(line(cell)) ?? RANK.length, rank(cell)));
  const whole = (cell: Verdict) => Number(cell.scenario !== TOGETHER);
  // Compared some 200,000 times where there are thousands: what a line is called, but once.
  const named = cells.map((cell) => ({ cell, name: line(cell) }));
  named.sort((a, b) => worst.get(a.name)! - worst.get(b.name)! || ORDER.compare(a.name, b.name)
    || whole(a.cell) - whole(b.cell) || rank(a.cell) - rank(b.cell));
  return named.map(({ cell }) => cell);
}
