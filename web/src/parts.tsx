// Small parts that pages share.
import { Fragment, useId, type MouseEvent, type ReactNode } from "react";
import type { Answer, Judged } from "./api";
import { go } from "./router";
import { ago, date, figure, percent } from "./words";

export function Link({ to, children, current, title }: {
  to: string; children: ReactNode; current?: boolean; title?: string;
}) {
  const follow = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a href={to} onClick={follow} aria-current={current ? "page" : undefined} title={title}>
      {children}
    </a>
  );
}

/** What is loading, failed or empty says so; otherwise `children` gets the value. */
export function Show<T>({ answer, empty, children }: {
  answer: Answer<T>; empty?: (value: T) => string | false; children: (value: T) => ReactNode;
}) {
  if (answer.state === "loading") return <p className="quiet" role="status">Loading…</p>;
  if (answer.state === "error") {
    return (
      <div className="notice" role="alert">
        <strong>{answer.status === 503 ? "Nothing to show yet." : "That did not work."}</strong>
        <p>{answer.message}</p>
      </div>
    );
  }
  const why = empty?.(answer.value);
  return (
    <>
      {answer.trouble && (
        <div className="notice" role="alert"><p>These are the last figures that came: {answer.trouble}</p></div>
      )}
      {answer.late && <p className="hidden" role="status">Loading…</p>}
      <div className={answer.late ? "late" : undefined} aria-busy={answer.late}>
        {why ? <div className="notice"><p>{why}</p></div> : children(answer.value)}
      </div>
    </>
  );
}

/** That not everything is drawn. */
export function Rest({ drawn, all, what = "lines" }: { drawn: number; all: number; what?: string }) {
  if (drawn >= all) return null;
  return <p className="notice">{drawn} of {all} {what} are drawn. Choose a target or a model for the others.</p>;
}

export function Pick({ label, value, options, all, onChange, show }: {
  label: string; value: string; options: string[]; all?: string;
  onChange: (value: string) => void; show?: (value: string) => string;
}) {
  return (
    <label className="pick">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.target.value)}>
        {all !== undefined && <option value="">{all}</option>}
        {!all && value === "" && <option value="">choose…</option>}
        {value !== "" && !options.includes(value) && <option value={value}>{value} (not there)</option>}
        {options.map((option) => (
          <option key={option} value={option}>{show ? show(option) : option}</option>
        ))}
      </select>
    </label>
  );
}

const MARKS = { slower: "▼", faster: "▲", same: "=", unsure: "?", broken: "✗" } as const;

/** A verdict in one sign and a few words; `whole` gives the change also where it is too small to be one. */
export function inShort(verdict: Judged | undefined, whole = false): { mark: string; words: string } {
  if (!verdict) return { mark: "", words: "new" };
  if (verdict.word === "broken") return { mark: MARKS.broken, words: "broken: every run fails" };
  if (!verdict.samples[0] || !verdict.samples[1]) return { mark: "", words: "no figure to compare" };
  const change = verdict.word === "same" && !whole ? "" : ` ${percent(verdict.change)}`;
  return { mark: MARKS[verdict.word], words: `${verdict.word}${change}` };
}

interface Shown { dead?: boolean; verdict?: Judged }

/** That nothing of a cell works, and did with no build before. */
export const stillFailing = (cell: Shown): boolean => Boolean(cell.dead) && cell.verdict?.word !== "broken";

/** The same of a cell, which may never have worked. */
export function ofCell(cell: Shown): { mark: string; words: string; tone: string } {
  if (stillFailing(cell)) return { mark: MARKS.broken, words: "every run fails", tone: "slower" };
  const { mark, words } = inShort(cell.verdict);
  return { mark, words, tone: mark ? tone(cell.verdict) : "quiet" };
}

/** How to colour it. */
export const tone = (verdict: Judged | undefined): string =>
  !verdict ? "quiet" : verdict.word === "broken" ? "slower" : verdict.word;

/** Never by colour alone. */
export function Change({ verdict, whole = false }: { verdict: Judged | undefined; whole?: boolean }) {
  const { mark, words } = inShort(verdict, whole);
  const detail = verdict?.p !== undefined && mark && verdict.word !== "broken"
    ? `${figure(verdict.old_median)} → ${figure(verdict.new_median)}; p ${verdict.p.toPrecision(2)}; ` +
      `${verdict.samples[0]} and ${verdict.samples[1]} runs`
    : undefined;
  return (
    <span className={`change ${mark ? tone(verdict) : "quiet"}`} title={detail}>
      {mark && <><span aria-hidden="true">{mark}</span> </>}{words}
    </span>
  );
}

/** Where a cell stands. */
export function Standing({ cell }: { cell: Shown }) {
  if (!stillFailing(cell)) return <Change verdict={cell.verdict} />;
  const { mark, words, tone } = ofCell(cell);
  return <span className={`change ${tone}`}><span aria-hidden="true">{mark}</span> {words}</span>;
}

/** A moment, in UTC as everywhere here; the reader's own time on pointing at it. */
export function When({ at, since = false, bare = false }: { at: number; since?: boolean; bare?: boolean }) {
  const passed = since ? ago(at, Date.now() / 1000) : "";
  return (
    <time dateTime={new Date(at * 1000).toISOString()} title={new Date(at * 1000).toLocaleString()}>
      {bare ? date(at).replace(" UTC", "") : date(at)}{passed && ` (${passed})`}
    </time>
  );
}

interface Titled { title: ReactNode; sort?: "ascending" | "descending" | undefined; number?: boolean }
export type Head = string | Titled;

/** `group` names the rows that follow; `detail` unfolds below its row, over the whole width. */
export interface Row { key: string; cells: ReactNode[]; group?: string | undefined; detail?: ReactNode }

/** Longer names are broken over lines, so that the figures beside them stay in sight. */
const LONG = 24;

export function Table({ caption, head, rows }: { caption: ReactNode; head: Head[]; rows: Row[] }) {
  const id = useId();
  const columns = head.map((one): Titled => (typeof one === "string" ? { title: one } : one));
  const wide = (title: ReactNode) => typeof title === "string" && title.split(" ").some((word) => word.length > LONG);
  const ofHead = (column: Titled) => [column.number && "number", wide(column.title) && "wide"].filter(Boolean).join(" ");
  const kind = (cell: ReactNode, i: number) =>
    columns[i]?.number ? "number" : typeof cell === "string" && cell.length > LONG ? "long" : undefined;
  return (
    <>
      <p className="caption" id={id}>{caption}</p>
      <div className="scroll" tabIndex={0} role="region" aria-labelledby={id}>
        <table aria-labelledby={id}>
          <thead>
            <tr>
              {columns.map((column, i) => (
                <th key={i} scope="col" aria-sort={column.sort} className={ofHead(column) || undefined}>{column.title}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <Fragment key={row.key}>
                {row.group !== undefined &&
                  <tr className="group"><th colSpan={columns.length} scope="colgroup"><span>{row.group}</span></th></tr>}
                <tr>{row.cells.map((cell, i) => <td key={i} className={kind(cell, i)}>{cell}</td>)}</tr>
                {row.detail && <tr className="detail"><td colSpan={columns.length}>{row.detail}</td></tr>}
              </Fragment>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
