// Small parts that pages share.
import type { MouseEvent, ReactNode } from "react";
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
  if (why) return <div className="notice"><p>{why}</p></div>;
  return <>{children(answer.value)}</>;
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
        {options.map((option) => (
          <option key={option} value={option}>{show ? show(option) : option}</option>
        ))}
      </select>
    </label>
  );
}

const MARKS = { slower: "▼", faster: "▲", same: "=", unsure: "?" } as const;

/** A verdict in a few signs; never by colour alone. */
export function Change({ verdict }: { verdict: Verdict | undefined }) {
  if (!verdict) return <span className="quiet">new</span>;
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

export function Table({ caption, head, rows }: {
  caption: string; head: ReactNode[]; rows: { key: string; cells: ReactNode[] }[];
}) {
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption>{caption}</caption>
        <thead>
          <tr>{head.map((cell, i) => <th key={i} scope="col">{cell}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key}>{row.cells.map((cell, i) => <td key={i}>{cell}</td>)}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
