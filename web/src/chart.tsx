// Lines with their intervals, drawn by uPlot; the same figures are there as a table.
import { useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { Table } from "./parts";
import { apart, figure, short } from "./words";

export interface Line {
  name: string;
  points: { x: number; label: string; median: number; low: number; high: number; n: number }[];
  /** Where every run failed: the line is broken there. */
  failed?: { x: number; label: string }[];
  /** Measured by other means: drawn dashed and named as such. */
  baseline?: boolean;
  /** Which colour; without one, by its place. */
  colour?: number | undefined;
}

/** A chart for every model: what differs by its model alone is not to be read off one picture. */
export function byModel<T extends { model: string }>(lines: T[]): [string, T[]][] {
  const models = [...new Set(lines.map((line) => line.model))];
  return models.map((model) => [model, lines.filter((line) => line.model === model)]);
}

/** Lines that can be told apart. */
export const MOST = 8;
/** Charts that one looks through. */
export const MOST_CHARTS = 6;

const LIGHT = ["#0b62b8", "#a34700", "#1b7a3d", "#8a2d8a", "#8a6d00", "#b3261e", "#006d77", "#5b5bd6"];
const DARK = ["#7ab8ff", "#ffb27a", "#7fdca0", "#e29ae2", "#e6cc66", "#ff9a94", "#6fd6e0", "#b3b3ff"];

/** The colour of every target, so that the charts of a page agree; none where there are more than colours. */
export function colours(lines: { target: string }[]): (target: string) => number | undefined {
  const targets = [...new Set(lines.map((line) => line.target))].sort();
  return (target) => (targets.length > LIGHT.length ? undefined : targets.indexOf(target));
}

function useDark(): boolean {
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const notice = () => setDark(query.matches);
    query.addEventListener("change", notice);
    return () => query.removeEventListener("change", notice);
  }, []);
  return dark;
}

/** uPlot leaves a gap at null; it draws on past undefined. */
type Column = (number | null | undefined)[];

/** One x axis for all lines; where a line's runs failed there is a gap. */
function columns(lines: Line[]): { data: uPlot.AlignedData; labels: Map<number, string> } {
  const labels = new Map<number, string>();
  for (const line of lines) for (const point of [...line.points, ...(line.failed ?? [])]) labels.set(point.x, point.label);
  const xs = [...labels.keys()].sort((a, b) => a - b);
  const rows: Column[] = [];
  for (const line of lines) {
    const at = new Map(line.points.map((point) => [point.x, point]));
    const failed = new Set(line.failed?.map((build) => build.x));
    for (const member of ["median", "low", "high"] as const) {
      rows.push(xs.map((x) => at.get(x)?.[member] ?? (failed.has(x) ? null : undefined)));
    }
  }
  return { data: [xs, ...rows] as uPlot.AlignedData, labels };
}

/** `whole` names it where it is read without what stands around it. */
export function Chart({ title, whole = title, unit, lines, xTitle, categories = false, logarithmic = false }: {
  title: string; whole?: string; unit: string; lines: Line[]; xTitle: string; categories?: boolean; logarithmic?: boolean;
}) {
  const box = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState<number | null>(null);
  const dark = useDark();
  const { data, labels } = useMemo(() => columns(lines), [lines]);
  useEffect(() => {
    const host = box.current;
    if (!host) return;
    const palette = dark ? DARK : LIGHT;
    const ink = dark ? "#c9d1d9" : "#3c4043";
    const grid = { stroke: dark ? "#30363d" : "#dfe3e8", width: 1 };
    const series: uPlot.Series[] = [{ label: xTitle, value: (_u, x) => labels.get(x) ?? "" }];
    const bands: uPlot.Band[] = [];
    lines.forEach((line, i) => {
      const colour = palette[(line.colour ?? i) % palette.length] ?? ink;
      const none = { show: false };
      series.push({
        label: line.name, stroke: colour, width: 2,
        dash: line.baseline ? [6, 6] : [], points: { show: !line.baseline, size: 7 },
        value: (_u, y) => (y === null ? "" : `${figure(y)} ${unit}`),
      });
      series.push({ label: `${line.name} low`, stroke: "transparent", points: none });
      series.push({ label: `${line.name} high`, stroke: "transparent", points: none });
      bands.push({ series: [3 * i + 3, 3 * i + 2], fill: `${colour}22` });
    });
    const text = (_u: uPlot, splits: number[]) => splits.map((x) => short(labels.get(x) ?? ""));
    const ticks = [...labels.keys()];
    const size = () => ({ width: Math.max(280, host.clientWidth), height: 300 });
    const plot = new uPlot(
      {
        ...size(), series, bands,
        legend: { show: false },
        hooks: {
          setCursor: [(u) => setAt(u.cursor.idx ?? null)],
          draw: [(u) => lines.forEach((line, i) => cross(u, line, palette[(line.colour ?? i) % palette.length] ?? ink))],
        },
        scales: {
          x: { time: false, distr: logarithmic ? 3 : 1, log: 2,
               ...(categories ? { range: [Math.min(...ticks) - 0.5, Math.max(...ticks) + 0.5] as [number, number] } : {}) },
          y: { range: (_u, _low, high) => [0, high * 1.08 || 1] },
        },
        axes: [
          { stroke: ink, grid, label: xTitle, labelSize: 22,
            ...(categories ? { splits: () => thin(ticks, labels, host.clientWidth - BESIDE), values: text } : {}) },
          { stroke: ink, grid, label: unit, size: 64, labelSize: 22 },
        ],
      },
      data, host,
    );
    const watch = new ResizeObserver(() => plot.setSize(size()));
    watch.observe(host);
    return () => { watch.disconnect(); plot.destroy(); };
  }, [data, labels, lines, dark, unit, xTitle, categories, logarithmic]);
  const palette = dark ? DARK : LIGHT;
  const x = at === null ? undefined : (data[0] as number[])[at];
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <ul className="legend">
        {lines.map((line, i) => (
          <li key={line.name}>
            <span className={line.baseline ? "swatch dashed" : "swatch"} aria-hidden="true"
              style={{ borderColor: palette[(line.colour ?? i) % palette.length] }} />
            <bdi>{line.name}</bdi>{line.baseline && " (baseline, measured otherwise)"}
            <span className="value" aria-hidden="true">
              {x !== undefined && figure(line.points.find((point) => point.x === x)?.median)}
            </span>
          </li>
        ))}
      </ul>
      <p className="readout" aria-hidden="true">
        {x === undefined ? "Point at the chart to read its figures." : `${xTitle} ${labels.get(x) ?? x}, ${unit || "values"} above`}
      </p>
      {lines.some((line) => line.failed?.length) && <ul className="legend">{lines.filter((line) => line.failed?.length).map((line) => (
        <li key={line.name}><span className="change slower">✗ every run failed</span>: {broken(line)}</li>
      ))}</ul>}
      <div ref={box} role="img" aria-label={`${whole}: ${spoken(lines, unit)}`} />
      <details>
        <summary>Show the figures</summary>
        <Table caption={whole} head={[xTitle, ...lines.map((line) => apart(line.name))]}
          rows={(data[0] as number[]).map((x) => ({
            key: String(x),
            cells: [labels.get(x) ?? x, ...lines.map((line) => {
              const point = line.points.find((p) => p.x === x);
              if (line.failed?.some((build) => build.x === x)) return "every run failed";
              return point ? `${figure(point.median)} (${figure(point.low)} to ${figure(point.high)}, ${point.n} runs)` : "";
            })],
          }))} />
      </details>
    </figure>
  );
}

/** What the figures beside a chart and the space at its end take of its width, and a letter below it (px). */
const BESIDE = 110, LETTER = 7.5, BETWEEN = 12;

/** As many labels as fit. */
function thin(ticks: number[], labels: Map<number, string>, width: number): number[] {
  const longest = Math.max(...[...labels.values()].map((label) => short(label).length));
  const step = Math.max(1, Math.ceil((ticks.length * (longest * LETTER + BETWEEN)) / Math.max(width, 1)));
  return ticks.sort((a, b) => a - b).filter((_, i) => i % step === 0);
}

/** Crosses on the axis, where a line is broken. */
function cross(u: uPlot, line: Line, colour: string): void {
  u.ctx.save();
  Object.assign(u.ctx, { fillStyle: colour, textAlign: "center", textBaseline: "bottom", font: `${16 * devicePixelRatio}px sans-serif` });
  for (const build of line.failed ?? []) u.ctx.fillText("✗", u.valToPos(build.x, "x", true), u.bbox.top + u.bbox.height);
  u.ctx.restore();
}

const broken = (line: Line): string =>
  `${apart(line.name)} with ${(line.failed ?? []).map((build) => apart(build.label)).join(", ")}`;

function spoken(lines: Line[], unit: string): string {
  return lines
    .map((line) => {
      const last = line.points[line.points.length - 1];
      const failed = line.failed?.length ? `; every run failed: ${broken(line)}` : "";
      return last ? `${apart(line.name)} ends at ${figure(last.median)} ${unit}${failed}` : `${apart(line.name)} has no points`;
    })
    .join("; ");
}
