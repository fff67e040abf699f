// Small pictures that stand in a table's cell or take a table's place.
import type { Spot, Verdict } from "./api";
import { Link, ofCell, tone } from "./parts";
import { apart, figure, worse } from "./words";

const WIDE = 96, HIGH = 22, PAD = 4;
/** The least share of a figure that fills the height: noise is to look like noise. */
const LEAST_SPAN = 0.2;

/** A figure over the newest builds, the last one marked. */
export function Spark({ medians, word }: { medians: (number | null)[]; word: string }) {
  const known = medians.filter((value) => value !== null);
  if (known.length < 2) return null;
  const low = Math.min(...known), high = Math.max(...known);
  const span = Math.max(high - low, LEAST_SPAN * Math.abs(high)) || 1;
  const middle = (low + high) / 2;
  const x = (i: number) => PAD + (i * (WIDE - 2 * PAD)) / (medians.length - 1);
  const y = (value: number) => HIGH / 2 - ((value - middle) / span) * (HIGH - 2 * PAD);
  const points = medians.flatMap((value, i) => (value === null ? [] : [`${x(i).toFixed(1)},${y(value).toFixed(1)}`]));
  const last = medians[medians.length - 1];
  const first = known[0];
  return (
    <svg className={`spark ${word}`} width={WIDE} height={HIGH} viewBox={`0 0 ${WIDE} ${HIGH}`} role="img"
      aria-label={`over ${medians.length} builds, from ${figure(first)} to ${last === null ? "failing" : figure(last)}`}>
      <polyline points={points.join(" ")} />
      {last !== null && last !== undefined && <circle cx={x(medians.length - 1)} cy={y(last)} r="2.5" />}
    </svg>
  );
}

/** How much better (to the left) or worse (to the right), beside others of up to `most`. */
export function Shift({ verdict, most }: { verdict: Verdict; most: number }) {
  const by = worse(verdict.metric, verdict.change);
  const length = `${(Math.min(1, Math.abs(by) / most) * 50).toFixed(1)}%`;
  return (
    <span className="shift" aria-hidden="true">
      <span className={tone(verdict)} style={by > 0 ? { left: "50%", width: length } : { right: "50%", width: length }} />
    </span>
  );
}

/** Rows of the map that fit a screen or two; with more, only those in which something is known to have changed. */
const ALL_ROWS = 24;
/** And no more of those than anybody looks through. */
const MOST_ROWS = 100;
const KNOWN = ["broken", "slower", "faster"];

/** Every cell of the newest builds in one picture: what changed, where. */
export function ChangeMap({ cells, to }: { cells: Spot[]; to: (cell: Spot) => string }) {
  const scenarios = [...new Set(cells.map((cell) => cell.scenario))].filter((name) => !name.startsWith("capability:"));
  const rows = new Map<string, Spot[]>();
  for (const cell of cells) {
    const key = `${cell.target} ${cell.model}`;
    const row = rows.get(key);
    if (row) row.push(cell);
    else rows.set(key, [cell]);
  }
  const changed = [...rows].filter(([, row]) => row.some((cell) => cell.dead || KNOWN.includes(cell.verdict?.word ?? "")));
  const shown = rows.size > ALL_ROWS ? changed.slice(0, MOST_ROWS) : [...rows];
  if (!shown.length) return null;
  return (
    <>
      <p className="caption" id="map">
        The newest build against the one before it: ▲ faster, ▼ slower, ✗ broken, = same, ? not sure, · new
        {shown.length < changed.length && `; ${changed.length - shown.length} more lines in which something changed are left out`}
        {changed.length < rows.size && shown.length < rows.size && `; ${rows.size - changed.length} of ${rows.size} lines in which nothing is known to have changed are left out`}
      </p>
      <div className="scroll" tabIndex={0} role="region" aria-labelledby="map">
        <table className="map" aria-labelledby="map">
          <thead>
            <tr><th scope="col">target · model</th>{scenarios.map((name) => <th key={name} scope="col">{name.replace(":", ":\u200b")}</th>)}</tr>
          </thead>
          <tbody>
            {shown.map(([key, row]) => (
              <tr key={key}>
                <th scope="row"><bdi>{row[0]!.target}</bdi> <small><bdi>{row[0]!.model}</bdi></small></th>
                {scenarios.map((name) => <Square key={name} cell={row.find((cell) => cell.scenario === name)} to={to} />)}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Square({ cell, to }: { cell: Spot | undefined; to: (cell: Spot) => string }) {
  if (!cell) return <td />;
  const { mark, words, tone } = ofCell(cell);
  const change = cell.verdict && ["slower", "faster"].includes(cell.verdict.word)
    ? ` ${Math.round(Math.abs(cell.verdict.change) * 100)} %` : "";
  return (
    <td className={tone}>
      <Link to={to(cell)} title={words}>
        <span aria-hidden="true">{mark || "·"}{change}</span>
        <span className="hidden">{`${apart(cell.target)}, ${apart(cell.model)}, ${cell.scenario}: ${words}`}</span>
      </Link>
    </td>
  );
}
