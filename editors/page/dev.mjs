// Serves the built page in front of a pool that runs elsewhere: `PIE=127.0.0.1:7480 npm run dev`, after `npm run build`.

import { createServer, request } from "node:http";
import { readFile } from "node:fs/promises";

const [host, port] = (process.env.PIE ?? "127.0.0.1:7480").split(":");
const types = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml", txt: "text/plain" };
const assets = new URL("../../crates/pie-http/page/", import.meta.url);

createServer(async (incoming, answer) => {
  const name = incoming.url === "/" ? "index.html" : /^\/page\/([\w.]+)$/.exec(incoming.url)?.[1];
  if (name) {
    const body = await readFile(new URL(name, assets)).catch(() => null);
    answer.writeHead(body ? 200 : 404, { "Content-Type": `${types[name.split(".").pop()]}; charset=utf-8` });
    return answer.end(body);
  }
  const { method, url: path, headers } = incoming;
  const outgoing = request({ host, port, method, path, headers }, (got) => {
    answer.writeHead(got.statusCode, got.headers);
    got.pipe(answer);
  });
  outgoing.on("error", () => answer.destroy());
  answer.on("close", () => outgoing.destroy());
  incoming.pipe(outgoing);
}).listen(Number(process.env.PORT ?? 7481), "127.0.0.1");
