import { type Fault, faultOf, forbidden, stateOf } from './faults.js';
import type { ProbeKind } from './probe.js';

/** What the ACL of Redis has refused to requests, and a probe may not ask for: a key, or a command that only few need. */
export interface MetRefusals {
  /** True: Redis has refused something that the bridge needs. */
  note(error: Error): boolean;
  /** What a probe has found, by server, with what was met of late where it found nothing. */
  among(found: ReadonlyMap<string, Fault | undefined>, isCluster: boolean): ReadonlyMap<string, Fault | undefined>;
}

/** Without these the bridge does less, and says so where it does. */
const OPTIONAL: ReadonlySet<string> = new Set(['role', 'info', 'client', 'config', 'cluster', 'acl', 'subscribe', 'auth', 'hello', 'scan', 'type']);
const READS: ReadonlySet<string> = new Set(['get', 'mget', 'getbuffer', 'mgetbuffer', 'hgetall', 'hgetallbuffer', 'hget', 'pttl']);
/** Longer than from one probe to the next. Who meets it again within this time keeps it. */
const KEEP_MS = 5000;

export function createMetRefusals(kind: ProbeKind, probeKey: string): MetRefusals {
  let met: { readonly fault: Fault; readonly at: number } | undefined;
  return {
    note(error) {
      const { name, args } = commandOf(error);
      if (stateOf(error) !== 'NOPERM' || name === '' || OPTIONAL.has(name)) return false;
      // Requests read by GET where they may not by MGET. What a probe meets it judges by itself.
      if (name === 'mget' || args.some((arg) => String(arg).startsWith(probeKey))) return false;
      const isOfKey = /\bkeys?\b/.test(error.message);
      const fault = isOfKey ? { ...faultOf('NOPERM'), words: 'its ACL keeps keys from this user that the bridge needs' } : forbidden(name);
      met = { fault: { ...fault, stopsReads: kind === 'role' && READS.has(name) }, at: performance.now() };
      return true;
    },
    among(found, isCluster) {
      const fault = met && performance.now() - met.at < KEEP_MS ? met.fault : undefined;
      if (!fault || [...found.values()].some((one) => one !== undefined)) return found;
      // Of a Cluster it is not known by which node.
      return isCluster ? new Map([...found, ['one of its nodes', fault]]) : new Map([...found.keys()].map((server) => [server, fault]));
    },
  };
}

/** ioredis says with an error what it was the answer to. */
function commandOf(error: Error): { readonly name: string; readonly args: readonly unknown[] } {
  const command: unknown = Reflect.get(error, 'command');
  if (command === null || typeof command !== 'object') return { name: '', args: [] };
  const [name, args]: unknown[] = [Reflect.get(command, 'name'), Reflect.get(command, 'args')];
  return { name: typeof name === 'string' ? name.toLowerCase() : '', args: Array.isArray(args) ? args : [] };
}
