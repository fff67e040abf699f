// Every page in a real browser: what it shows, how fast, its errors, its accessibility.
//
//   node tests/pages.mjs BASE_URL seeded|empty|broken|failing [--shots FOLDER] [--quick]
//
// Prints one line of JSON per check; exit status 1 when one failed.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [base, state, ...options] = process.argv.slice(2);
const shots = options.includes("--shots") ? options[options.indexOf("--shots") + 1] : null;
const quick = options.includes("--quick");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PAGES = {
  "/": "Overview", "/trends": "Trends", "/compare": "Compare", "/concurrency": "Concurrency",
  "/scaling": "Scaling", "/swap": "Swap", "/answers": "Answers", "/runs": "Runs",
};
let failed = 0;
function check(name, ok, detail = "") {
  if (!ok) failed += 1;
  console.log(JSON.stringify({ check: name, ok: Boolean(ok), detail }));
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function open(path, settings = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...settings });
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  const trouble = [];
  page.on("pageerror", (error) => trouble.push(String(error)));
  page.on("console", (message) => {
    // The browser itself reports an answer of 503; the page is to say it in words.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) trouble.push(message.text());
  });
  const view = { page, trouble, close: () => context.close() };
  await visit(view, path);
  return view;
}

async function visit({ page, trouble }, path) {
  trouble.length = 0;
  await page.goto(base + path);
  await settled(page);
}

async function settled(page) {
  await page.waitForFunction(
    () => document.querySelector("h1") && !document.querySelector("[role=status]"),
    null, { timeout: 60_000 },
  );
}

async function until(holds) {
  for (const end = Date.now() + 60_000; !holds() && Date.now() < end;) await new Promise((after) => setTimeout(after, 20));
}

async function accessible(page, name) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const words = found.violations.map((v) => `${v.id}: ${v.nodes[0]?.html.slice(0, 120)}`).join("; ");
  check(`${name} has no accessibility violations`, !found.violations.length, words);
}

const looks = quick ? [["light", 1280]] : [["light", 1280], ["dark", 1280], ["light", 390], ["dark", 390]];
for (const [colorScheme, width] of state === "failing" ? [] : looks) {
  const view = await open("/", { colorScheme, viewport: { width, height: 900 } });
  const { page, trouble, close } = view;
  for (const [path, title] of Object.entries(PAGES)) {
    const name = `${title} ${colorScheme} ${width}`;
    if (path !== "/") await visit(view, path);
    check(`${name} has its title`, (await page.textContent("h1")) === title);
    check(`${name} logs no errors`, !trouble.length, trouble.join("; "));
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(`${name} fits its width`, overflow <= 0, `${overflow} px too wide`);
    if (state === "seeded") {
      const shown = await page.locator("table, canvas, article").count();
      check(`${name} shows figures`, shown > 0);
      await accessible(page, name);
    } else {
      const words = await page.locator(".notice").first().textContent();
      check(`${name} says why there is nothing`, Boolean(words?.trim()), words ?? "");
    }
    if (shots) {
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: `${shots}/${state}-${title.toLowerCase()}-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
  await close();
}

if (state === "seeded") {
  const { page, close } = await open("/");
  check("the slower node is named first", (await page.textContent(".notice.bad"))?.includes("cellar"));
  check("what broke is named with the build", (await page.textContent(".notice.bad"))?.includes("every run fails with"));
  check("the map shows every line, and where it went wrong", (await page.locator(".map tbody tr").count()) === 8
    && (await page.locator(".map td.slower").count()) > 20, `${await page.locator(".map td.slower").count()} squares`);
  await page.waitForSelector("svg.spark");
  check("a cell's way over builds is drawn and told", (await page.locator("svg.spark").first().getAttribute("aria-label"))?.startsWith("over "));
  await page.click(".notice.bad a[href^='/trends']");
  await settled(page);
  check("the page may load nothing from elsewhere", await page.evaluate(() => new Promise((tell) => {
    document.addEventListener("securitypolicyviolation", () => tell(true));
    fetch("http://127.0.0.1:1/").catch(() => setTimeout(tell, 20_000, false));
  })));
  check("a regression leads to its trend", page.url().includes("/trends?target=cellar"), page.url());
  check("a trend is drawn", (await page.locator("canvas").count()) > 0);
  await page.hover(".u-over");
  check("pointing at a chart reads its figures", (await page.textContent(".legend .value"))?.trim());
  await page.reload();
  await settled(page);
  check("a deep link shows the same", (await page.inputValue("select >> nth=0")) === "cellar");
  await page.selectOption("select >> nth=4", "vllm");
  await page.waitForSelector("text=baseline, measured otherwise");
  check("a baseline is marked as one", true);
  await page.selectOption("select >> nth=0", "");
  await page.waitForFunction(() => document.querySelectorAll("figure:first-of-type .swatch").length === 4);
  check("a baseline is marked as one among all targets", (await page.locator("figure >> nth=0").locator(".swatch.dashed").count()) === 1);
  await page.goBack();
  await settled(page);
  check("back leads back", (await page.textContent("h1")) === "Overview");

  await page.goto(`${base}/runs`);
  await settled(page);
  await page.selectOption("select >> nth=4", "false");
  await page.waitForFunction(() => document.querySelector("td .change.slower") !== null);
  check("failed runs are found", (await page.locator("td >> text=failed").count()) > 0);
  await page.click("button[aria-label^='show run']");
  check("a run shows its raw row", (await page.textContent("td pre"))?.includes("finish reason"));
  const linked = page.url();
  await page.reload();
  await settled(page);
  check("a raw row can be linked to", (await page.textContent("td pre"))?.includes("finish reason"), linked);
  await page.goto(`${base}/runs?run=1`);
  await page.waitForSelector("pre#raw");
  check("also when it is on another page", (await page.textContent("main"))?.includes("Run 1, which is not on this page"));
  await page.goto(linked);
  await settled(page);
  await page.click("button[aria-label='sort by first token (ms)']");
  await page.waitForFunction(() => location.search.includes("sort=first_token_ms"));
  check("sorting is in the address", true);
  await settled(page);
  check("sorting leaves the keyboard where it was", await page.evaluate(
    () => document.activeElement?.getAttribute("aria-label") === "sort by first token (ms)"));
  check("the sorted column says so", (await page.locator("th[aria-sort=descending]").textContent())?.includes("first token"));

  await page.goto(`${base}/?target=ghost`);
  await settled(page);
  check("a link to what is gone says so", (await page.textContent("main"))?.includes("Nothing was measured that fits"));
  check("and what it asks for", (await page.textContent("select >> nth=0"))?.includes("ghost (not there)"));

  await page.goto(`${base}/compare?a=ghost`);
  await settled(page);
  check("a comparison with what is gone is not one with something else", (await page.textContent(".notice"))?.includes("no runs of"));
  check("and says what it asks for", (await page.textContent("select >> nth=1"))?.includes("ghost (not there)"));

  await page.goto(`${base}/compare`);
  await settled(page);
  await page.selectOption("select >> nth=1", { index: 2 });
  check("whoever chooses one side has both in the address", /[?&]a=.*&b=/.test(page.url()), page.url());

  await page.goto(`${base}/trends?target=shelf&scenario=structured&model=Qwen/Qwen3-8B`);
  await settled(page);
  check("a build that broke is in its trend", (await page.textContent("figure"))?.includes("every run failed"));
  check("and told of to who cannot see it", (await page.getAttribute("figure [role=img]", "aria-label"))?.includes("every run failed"));

  await page.goto(base);
  await settled(page);
  await page.keyboard.press("Tab");
  check("the first tab stop skips to the page", (await page.evaluate(() => document.activeElement?.textContent)) === "Skip to the page");
  for (let i = 0; i < 2; i += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await settled(page);
  check("the keyboard turns pages", (await page.textContent("h1")) === "Trends");
  await close();

  const cut = await open("/");
  await cut.page.clock.install();
  await cut.page.route("**/api/**", (route) => route.abort());
  await cut.page.goto(`${base}/runs`);
  await cut.page.waitForSelector("[role=alert]");
  await cut.page.unroute("**/api/**");
  await cut.page.clock.fastForward(6_000);
  await cut.page.waitForSelector("table");
  check("a page comes back by itself when the bench does", true);
  await cut.page.route("**/api/**", (route) => route.abort());
  await cut.page.clock.fastForward(61_000);
  await cut.page.waitForSelector("[role=alert]");
  check("figures stay when the bench goes, and are said to be old", (await cut.page.locator("table").count()) > 0);
  await cut.page.unroute("**/api/**");
  await cut.page.clock.fastForward(6_000);
  await cut.page.waitForFunction(() => !document.querySelector("[role=alert]"));
  let asked = 0;
  await cut.page.route("**/api/**", () => { asked += 1; });
  await cut.page.clock.fastForward(61_000);
  await until(() => asked > 0);
  await cut.page.clock.fastForward(61_000);
  await cut.page.waitForSelector("[role=alert]");
  check("a bench that takes questions and never answers is one that is away", true);
  await cut.close();

}

if (state === "failing") {
  const { page, trouble, close } = await open("/");
  const words = await page.textContent(".notice.bad");
  const broken = await page.textContent("section[aria-label=Regressions]");
  check("what never worked is named first", words?.includes("every run fails with 1.2"), words);
  check("what broke two builds ago is named still", broken?.includes("with 1.2+c; it worked with 1.0+a"), broken);
  check("and found in the map", (await page.locator(".map td.slower").count()) === 2);
  check("and in its row", (await page.textContent("tr .change.slower"))?.includes("every run fails"));
  await accessible(page, "a page of failures");
  await page.click(".notice.bad a");
  await settled(page);
  check("it leads to why", (await page.textContent("td .failed"))?.includes("boom"));
  await page.goto(`${base}/concurrency`);
  await settled(page);
  check("no good run is no curve, and no knee", (await page.locator("canvas").count()) === 0
    && (await page.textContent("table"))?.includes("no good run"));
  await page.goto(`${base}/answers`);
  await settled(page);
  check("answers that are left out are counted", (await page.textContent(".notice"))?.includes("newest 50 of 60"));
  await page.selectOption("select >> nth=1", "old");
  await page.waitForFunction(() => [...document.querySelectorAll("article")].every((one) => one.textContent.includes("old")));
  check("and shown when they are asked for", (await page.locator("article").count()) === 10);
  check("a failing store logs no errors", !trouble.length, trouble.join("; "));
  await close();
}

if (state === "seeded" && !quick) {  // a bar of time: for a machine that does nothing else
  const timed = await open("/");
  await timed.page.goto(base);
  await timed.page.waitForSelector("table");
  const paint = await timed.page.evaluate(async () => {
    const [entry] = performance.getEntriesByName("first-contentful-paint");
    return { paint: entry?.startTime ?? 0, table: performance.now() };
  });
  check("the first picture is there within a second", paint.table <= 1000, JSON.stringify(paint));
  await timed.close();
}
const lost = await open("/nowhere");
check("an unknown page says so", (await lost.page.textContent("h1")) === "There is no such page");
await lost.close();
await browser.close();
process.exit(failed ? 1 : 0);
