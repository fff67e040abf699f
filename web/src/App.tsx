import { useEffect, useRef, type ReactNode } from "react";
import { Link } from "./parts";
import { useAddress } from "./router";
import { Compare } from "./pages/Compare";
import { Concurrency, Scaling } from "./pages/Curves";
import { Overview } from "./pages/Overview";
import { Answers } from "./pages/Answers";
import { Runs } from "./pages/Runs";
import { Swap } from "./pages/Swap";
import { Trends } from "./pages/Trends";

const PAGES: { path: string; title: string; page: () => ReactNode }[] = [
  { path: "/", title: "Overview", page: Overview },
  { path: "/trends", title: "Trends", page: Trends },
  { path: "/compare", title: "Compare", page: Compare },
  { path: "/concurrency", title: "Concurrency", page: Concurrency },
  { path: "/scaling", title: "Scaling", page: Scaling },
  { path: "/swap", title: "Swap", page: Swap },
  { path: "/answers", title: "Answers", page: Answers },
  { path: "/runs", title: "Runs", page: Runs },
];

export function App() {
  const { path } = useAddress();
  const found = PAGES.find((page) => page.path === path);
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${found?.title ?? "Not found"} · helexa bench`;
    // A reader of the screen is taken to the new page, but not away from the first one.
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [found]);
  const Page = found?.page;
  return (
    <>
      <a className="skip" href="#main">Skip to the page</a>
      <header>
        <span className="brand">
          <svg viewBox="0 0 16 16" aria-hidden="true"><path d="M1 9h3v6H1zM6.5 5h3v10h-3zM12 1h3v14h-3z" /></svg>helexa bench
        </span>
        <nav aria-label="Pages">
          {PAGES.map((page) => (
            <Link key={page.path} to={page.path} current={page.path === path}>{page.title}</Link>
          ))}
        </nav>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <h1>{found?.title ?? "There is no such page"}</h1>
        {Page ? <Page /> : <p><Link to="/">To the overview</Link></p>}
      </main>
    </>
  );
}
