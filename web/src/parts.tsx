// Small parts that pages share.
import { useId, type MouseEvent, type ReactNode } from "react";
import type { Answer, Verdict } from "./api";
import { go } from "./router";
import { figure, percent } from "./words";

export function Link({ to, children, current }: { to: string; children: ReactNode; current?: boolean }) {
  const follow = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a href={to} onClick={follow} aria-current={current ? "page" : undefined}>
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
export function Rest({ drawn, all }: { drawn: number; all: number }) {
  if (drawn >= all) return null;
  return <p className="notice">{drawn} of {all} lines are drawn. Choose a target or a model for the others.</p>;
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

/** A verdict in a few signs; never by colour alone. */
export function Change({ verdict }: { verdict: Verdict | undefined }) {
  if (!verdict) return <span className="quiet">new</span>;
  if (verdict.word === "broken") {
    return <span className="change slower"><span aria-hidden="true">{MARKS.broken}</span> broken: every run fails</span>;
  }
  if (!verdict.samples[0] || !verdict.samples[1]) return <span className="quiet">no figure to compare</span>;
  const detail =
    `${figure(verdict.old_median)} → ${figure(verdict.new_median)}; p ${verdict.p.toPrecision(2)}; ` +
    `${verdict.samples[0]} and ${verdict.samples[1]} runs`;
  return (
    <span className={`change ${verdict.word}`} title={detail}>
      <span aria-hidden="true">{MARKS[verdict.word]}</span> {verdict.word}
      {verdict.word !== "same" && ` ${percent(verdict.change)}`}
    </span>
  );
}

export type Head = ReactNode | { title: ReactNode; sort: "ascending" | "descending" | undefined };

/** Longer names are broken over lines, so that the figures beside them stay in sight. */
const LONG = 24;

export function Table({ caption, head, rows }: {
  caption: string; head: Head[]; rows: { key: string; cells: ReactNode[] }[];
}) {
  const id = useId();
  return (
    <>
      <p className="caption" id={id}>{caption}</p>
      <div className="scroll" tabIndex={0} role="region" aria-labelledby={id}>
        <table aria-labelledby={id}>
          <thead>
            <tr>
              {head.map((cell, i) => {
                const sorted = typeof cell === "object" && cell !== null && "sort" in cell;
                return <th key={i} scope="col" aria-sort={sorted ? cell.sort : undefined}>{sorted ? cell.title : cell}</th>;
              })}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.key}>
                {row.cells.map((cell, i) => (
                  <td key={i} className={typeof cell === "string" && cell.length > LONG ? "long" : undefined}>{cell}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
