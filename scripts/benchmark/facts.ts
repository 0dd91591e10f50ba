import type { Bed } from './bed.js';
import { sendLoad } from './load.js';
import { sample } from './measure.js';
import type { Fact } from './report.js';

const MIB = 2 ** 20;
/** More than this is not flat. */
const FLAT = 1.2;

/** What is no share of a bare Koa: memory for what is remembered, and how long a start takes. */
export async function growthFacts(bed: Bed, say: (what: string) => void): Promise<Fact[]> {
  say('memory and start');
  const [bridge, revoked, many] = [await bed.app('bridge'), await bed.app('bridge many revocations'), await bed.app('bridge many sessions')];
  const perToken = await memoryOfTokens(bed);
  const [small, withRevocations, withSessions] = [await bridge.memory(), await revoked.memory(), await many.memory()];
  return [
    { title: '100,000 remembered tokens', value: `${(perToken / 1e6).toFixed(0)} MB of heap (goal: ≤ 60 MB)`, isMissed: perToken > 60e6 },
    { title: 'start, 0 revocations to read', value: `${Math.round(bridge.startMs)} ms` },
    { title: 'start, 100,000 revocations to read', value: `${Math.round(revoked.startMs)} ms` },
    { title: 'heap of the bridge after all of its rows', value: `${mib(small.heapBytes)} MiB (rss ${mib(small.rssBytes)})` },
    { title: 'the same with 100,000 revocations', value: `${mib(withRevocations.heapBytes)} MiB (rss ${mib(withRevocations.rssBytes)})` },
    {
      title: 'the same with 1,000,000 sessions in Redis, of which 50,000 come',
      value: `${mib(withSessions.heapBytes)} MiB (rss ${mib(withSessions.rssBytes)})`,
    },
  ];
}

/** Every token, by a bridge that has seen none. */
async function memoryOfTokens(bed: Bed): Promise<number> {
  const fresh = await bed.app('bridge for memory');
  const workload = { ...(await bed.workload('bearer, 100,000 tokens, Zipf')), order: 'cycle' as const };
  const tokens = workload.texts?.length ?? 0;
  const before = await fresh.memory();
  for (let shown = 0; shown < tokens; ) shown = (await sendLoad(workload, fresh.port, 10, bed.directory)).requests;
  const after = await fresh.memory();
  return ((after.heapBytes - before.heapBytes) / tokens) * 100_000;
}

/** One bridge under load, minute by minute: what grows, grows here. */
export async function soakFacts(bed: Bed, minutes: number, say: (what: string) => void): Promise<Fact[]> {
  const app = await bed.app('bridge');
  const facts: Fact[] = [];
  const heaps: number[] = [];
  const latencies: number[] = [];
  for (let minute = 1; minute <= minutes; minute++) {
    const bearer = await sample(bed, { app: 'bridge', workload: 'bearer, 50,000 tokens, Zipf' }, 30);
    const session = await sample(bed, { app: 'bridge', workload: 'session, 64 connections' }, 30);
    const { heapBytes, rssBytes } = await app.memory();
    const p99 = `p99 ${bearer.p99Ms.toFixed(1)} ms by bearer, ${session.p99Ms.toFixed(1)} ms by session`;
    const value = `heap ${mib(heapBytes)} MiB, rss ${mib(rssBytes)} MiB, ${p99}`;
    say(`soak, minute ${minute}: ${value}`);
    facts.push({ title: `soak, minute ${minute}`, value });
    heaps.push(heapBytes);
    latencies.push(bearer.p50Ms + session.p50Ms);
  }
  // What the first minute warms up does not count.
  const growthOf = (values: readonly number[]) => (values.at(-1) ?? 0) / (values[Math.min(1, values.length - 1)] ?? 1);
  const [heap, latency] = [growthOf(heaps), growthOf(latencies)];
  const isMissed = heap > FLAT || latency > FLAT;
  facts.push({ title: 'soak, last minute against the second', value: `heap × ${heap.toFixed(2)}, median latency × ${latency.toFixed(2)}`, isMissed });
  return facts;
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(0);
}
