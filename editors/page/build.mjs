// Bundles the page into crates/pie-http/page/, which the pool has in it. All files there are made here.

import { build } from "esbuild";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.env.PAGE_OUT ?? join(here, "../../crates/pie-http/page");
const MOST_BYTES = 500_000;

await mkdir(out, { recursive: true });
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.ts" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2023",
  charset: "utf8",
  legalComments: "none",
  loader: { ".txt": "text" },
  metafile: true,
});
await build({
  absWorkingDir: here,
  entryPoints: ["src/page.css"],
  outdir: out,
  minify: true,
  target: ["chrome120", "firefox121", "safari17.5"],
});
for (const file of ["index.html", "icon.svg"]) await copyFile(join(here, "src", file), join(out, file));

// Whoever passes a bundle on passes on the licences of what is in it.
const bundled = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const name = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
  if (name) bundled.add(name);
}
let notes = "page.js holds these packages.\n";
for (const name of [...bundled].sort()) {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((file) => /^licen[cs]e/i.test(file));
  if (!file) throw new Error(`${name} has no file of its licence`);
  notes += `\n---- ${name} ${version} (${license})\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`;
}
await writeFile(join(out, "licences.txt"), notes);

// What it was made of, as sha256sum writes it: a test without node sees that sources and page belong together.
const sources = ["build.mjs", "package-lock.json", "tsconfig.json"];
for (const folder of ["sample", "src"]) {
  for (const file of await readdir(join(here, folder))) sources.push(`${folder}/${file}`);
}
let sums = "";
for (const file of sources.sort()) {
  sums += `${createHash("sha256").update(await readFile(join(here, file))).digest("hex")}  ${file}\n`;
}
await writeFile(join(out, "sources.sha256"), sums);

let sum = 0;
for (const file of (await readdir(out)).sort()) {
  const { size } = await stat(join(out, file));
  console.log(`${String(size).padStart(8)} ${file}`);
  sum += size;
}
console.log(`${String(sum).padStart(8)} in all`);
if (sum > MOST_BYTES) throw new Error(`the page has more than ${MOST_BYTES} bytes`);
