import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { pinned } from './cores.js';

/** The requests of a measurement. All are alike but for one text that each of them carries. */
export interface Workload {
  readonly name: string;
  readonly connections: number;
  readonly method?: 'GET' | 'POST';
  /** Default: `/`. */
  readonly path?: string;
  /** The texts, and where each stands: as a header, or as what is in the body at `{}`. Absent: all requests are the same. */
  readonly texts?: readonly string[];
  readonly header?: string;
  readonly form?: string;
  /** Which text is next: one after the other, or some much more often than others, as people come. Default: `cycle`. */
  readonly order?: 'cycle' | 'zipf';
  /** For texts that can be used once: what in an answer is the next to be used. */
  readonly successor?: string;
  readonly status: number;
}

export interface Load {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const run = promisify(execFile);
const summary = z.object({ requests: z.number(), micros: z.number(), p50: z.number(), p99: z.number(), failed: z.number() });

/**
 * Sends a workload by wrk for some seconds, over connections that are kept.
 * @throws where anything was answered otherwise than with the workload's status, or not at all.
 */
export async function sendLoad(workload: Workload, port: number, seconds: number, directory: string): Promise<Load> {
  const script = join(directory, 'load.lua');
  writeFileSync(script, luaOf(workload, directory));
  const url = `http://127.0.0.1:${port}${workload.path ?? '/'}`;
  const { command, args } = pinned('others', 'wrk', ['-t1', `-c${workload.connections}`, `-d${seconds}s`, '-s', script, url]);
  const { stdout } = await run(command, args).catch((error: unknown) => {
    throw new Error(`wrk failed: ${error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : String(error)}`);
  });
  const { requests, micros, p50, p99, failed } = summary.parse(JSON.parse(/^summary (.*)$/m.exec(stdout)?.[1] ?? 'null'));
  if (failed > 0 || requests === 0) throw new Error(`${workload.name}: ${failed} of ${requests} requests were not answered ${workload.status}`);
  return { requests, seconds: micros / 1e6, p50Ms: p50 / 1000, p99Ms: p99 / 1000 };
}

const DRAWS = 200_000;

function luaOf({ method = 'GET', path = '/', texts, header, form, order = 'cycle', successor, status }: Workload, directory: string): string {
  const head = `${method} ${path} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n`;
  if (texts) writeFileSync(join(directory, 'texts'), `${texts.join('\n')}\n`);
  if (texts && order === 'zipf') writeFileSync(join(directory, 'draws'), zipf(texts.length, DRAWS).join('\n'));
  const one =
    form === undefined
      ? `"${head}${header ?? 'X-Text'}: " .. text .. "\\r\\n\\r\\n"`
      : `"${head}Content-Type: application/x-www-form-urlencoded\\r\\nContent-Length: " .. #("${form}" .. text) .. "\\r\\n\\r\\n${form}" .. text`;
  return `
local texts, draws, at, first, last = {}, {}, 0, 1, 0
local function request_of(text) return ${texts ? one : `"${head}\\r\\n"`} end
function init()
  ${texts ? `for line in io.lines("${join(directory, 'texts')}") do last = last + 1; texts[last] = ${successor ? 'line' : 'request_of(line)'} end` : 'texts[1] = request_of(""); last = 1'}
  ${order === 'zipf' ? `for line in io.lines("${join(directory, 'draws')}") do draws[#draws + 1] = tonumber(line) end` : ''}
end
function request()
  ${nextText(successor !== undefined, order)}
end
${successor ? `function response(status, headers, body) last = last + 1; texts[last] = string.match(body, '"${successor}":"([^"]*)"') or "none" end` : ''}
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format('summary {"requests":%d,"micros":%d,"p50":%d,"p99":%d,"failed":%d}', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.timeout${status < 400 ? ' + e.status' : ' + summary.requests - e.status'}))
end
`;
}

/** Lua that gives the next request. */
function nextText(usedOnce: boolean, order: 'cycle' | 'zipf'): string {
  if (usedOnce) return 'local text = texts[first]; texts[first] = nil; first = first + 1; return request_of(text)';
  return order === 'zipf' ? 'at = at % #draws + 1; return texts[draws[at]]' : 'at = at % last + 1; return texts[at]';
}

/** Draws by Zipf's law (exponent 1), the same in every run: the n-th most frequent comes 1/n as often as the first. */
function zipf(size: number, draws: number): number[] {
  const sums = new Float64Array(size);
  let sum = 0;
  for (let n = 0; n < size; n++) {
    sum += 1 / (n + 1);
    sums[n] = sum;
  }
  let state = 1;
  return Array.from({ length: draws }, () => {
    state = (state * 48_271) % 2_147_483_647;
    const wanted = (state / 2_147_483_647) * sum;
    let low = 0;
    for (let high = size - 1; low < high; ) {
      const middle = (low + high) >> 1;
      if ((sums[middle] ?? sum) < wanted) low = middle + 1;
      else high = middle;
    }
    return low + 1;
  });
}
