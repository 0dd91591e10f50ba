import type { SessionConfig } from '../config/config.js';
import type { SweepCounts } from '../endings/sweep.js';
import { count, span } from './words.js';

export interface EndOptions {
  readonly config: string;
  readonly subject: string;
  readonly why: string;
  readonly tenant?: string;
  readonly exceptSid?: string;
  readonly sweep?: boolean;
  readonly perSecond: number;
  readonly dryRun?: boolean;
  /** What an interrupted sweep has printed. */
  readonly resume?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
}

/** What the command ends with. */
const ENDED = 0;
export const FAILED = 2;
const INCOMPLETE = 3;
const UNKNOWN = 4;

/** Of the entries of `sessions`, which logins can be ended how. */
export interface Reach {
  /** By the time of the login, at once. */
  readonly timed: readonly string[];
  /** Of those, the entries that could not be seen to have a time in all of their records. */
  readonly unsure: readonly string[];
  /** Only by looking through their records. */
  readonly untimed: readonly SessionConfig[];
  /** Not by the bridge: the app is asked each time, or who a record belongs to is known to a function of the app. */
  readonly beyond: readonly string[];
}

/** What was done at once. */
export interface Done {
  /** Sessions that tokens were made from, and that lived. */
  readonly sessions: number;
  /** Sessions of that name that are known, those in other tenants among them. */
  readonly known: number;
  /** Sessions that were passed over, because nothing says any more in which tenant they were. */
  readonly unplaced: number;
  readonly tenants: readonly string[];
  readonly endedAt: number;
  readonly instances: number;
  /** Live instances that did not confirm it. */
  readonly missing: readonly string[];
}

export interface Swept extends SweepCounts {
  readonly total: number;
  readonly isWhole: boolean;
  readonly resume?: string;
  readonly problem?: string;
}

export function nameOfTenant(name: string): string {
  return name === '' ? 'none' : name;
}

export function describeWork(keys: number, { perSecond }: EndOptions): string {
  return `${keys.toLocaleString('en-US')} keys, ${perSecond.toLocaleString('en-US')} a second at most: ${span((keys / perSecond) * 1000)} at least`;
}

export function names(sessions: readonly Pick<SessionConfig, 'name'>[]): string {
  return sessions.map(({ name }) => name).join(', ');
}

/** How often a line is written where there is no terminal to write the same line anew. */
const PROGRESS_MS = 10_000;

/** Says how far it is, on standard error; undefined ends the line. */
export function showProgress(total: number): (counts: SweepCounts | undefined) => void {
  const isLine = process.stderr.isTTY === true;
  let saidAt = performance.now();
  let isOpen = false;
  return (counts) => {
    if (!counts) {
      if (isOpen) process.stderr.write('\n');
      return;
    }
    if (!isLine && performance.now() - saidAt < PROGRESS_MS) return;
    saidAt = performance.now();
    const looked = Math.min(counts.keys, total);
    const text = `${total === 0 ? 100 : Math.floor((looked / total) * 100)} %, ${looked.toLocaleString('en-US')} keys: ${count(counts.found, 'session')} found, ${counts.deleted} ended`;
    isOpen = isLine;
    process.stderr.write(isLine ? `\r${text}` : `${text}\n`);
  };
}

export function describeDone({ sessions, tenants, endedAt, instances, missing }: Done, { timed }: Reach, { tenant, dryRun }: EndOptions): string[] {
  const of = tenant === undefined ? '' : ` of tenant ${tenant}`;
  const found = tenants.filter((name) => name !== '');
  const where = tenant === undefined && found.length > 0 ? ` (tenant ${found.join(', ')})` : '';
  const made = `${count(sessions, 'session')}${of}${where} that tokens were made from, with all their tokens`;
  const logins =
    timed.length > 0 ? [`every login to ${timed.join(', ')} before ${new Date(endedAt).toISOString()} whose record says when it was`] : [];
  if (dryRun) return [`Would end: ${[made, ...logins].join('; ')}. Nothing was done.`];
  return [`Ended: ${[made, ...logins].join('; ')}.`, describeHeard(instances, missing)];
}

function describeHeard(instances: number, missing: readonly string[]): string {
  if (instances === 0) return 'No instance is alive: whatever starts will know.';
  if (missing.length > 0) return `NOT confirmed by ${missing.join(', ')}: see crossfade status`;
  return instances === 1 ? 'The live instance has confirmed it.' : `All ${instances} live instances have confirmed it.`;
}

export function describeSwept(swept: Swept, { dryRun, tenant }: EndOptions): string[] {
  const { keys, total, found, deleted, newer, otherTenants, busy, isWhole, problem } = swept;
  const looked = `${Math.min(keys, total).toLocaleString('en-US')} keys`;
  const meant = found - newer - [...otherTenants.values()].reduce((sum, one) => sum + one, 0);
  const sentence = (sessions: number) => `${count(sessions, 'session')} that ${sessions === 1 ? 'was' : 'were'} found among ${looked}.`;
  const cureOf = (name: string) =>
    [...(name === '' ? [] : [`--tenant ${name}`]), ...(tenant === undefined ? ['--yes'] : [])].join(', or ') || '--yes without --tenant';
  return [
    dryRun ? `Would delete: ${sentence(meant)}` : `Ended: ${sentence(deleted)}`,
    ...(newer > 0 ? [`Left: ${count(newer, 'login')} after that time.`] : []),
    ...[...otherTenants].map(
      ([name, sessions]) =>
        `NOT ended: ${count(sessions, 'session')} in tenant ${nameOfTenant(name)}: ${cureOf(name)} ends ${sessions === 1 ? 'it' : 'them'}`,
    ),
    ...(busy > 0 ? [`NOT ended: ${count(busy, 'session')} that the app writes all the time. Run the same again.`] : []),
    ...(isWhole ? [] : [`NOT through: ${problem}.`]),
  ];
}

/** What goes on, and what would end it. */
export function describeLeft(done: Done, { untimed, unsure, beyond }: Reach, swept: Swept | undefined, options: EndOptions): string[] {
  const isUnknown = isNobody(done, swept);
  return [
    ...(swept?.resume === undefined ? [] : [`Go on with: crossfade end ${commandOf(options)} --resume ${swept.resume}`]),
    ...(!swept && untimed.length > 0
      ? [
          `NOT ended: sessions of ${names(untimed)} that tokens were never made from: ${options.tenant === undefined ? 'their records, or some of them, say no time of the login (principal.authTime)' : 'they are found one by one'}. --sweep looks for them.`,
        ]
      : []),
    ...(!swept && unsure.length > 0
      ? [`Whether all records of ${unsure.join(', ')} say when the login was could not be seen: --sweep looks at each.`]
      : []),
    ...(done.unplaced > 0
      ? [`NOT ended: ${count(done.unplaced, 'session')} of which nothing says any more in which tenant. --yes without --tenant ends them.`]
      : []),
    ...(beyond.length > 0 ? [`Sessions of ${beyond.join(', ')} that tokens were never made from are the app's own to end.`] : []),
    ...(isUnknown
      ? [
          `Nobody of this name${options.tenant === undefined ? '' : ' and tenant'} was ever seen${swept ? '' : ' with tokens'}, as far as Redis knows: is it spelled as in "sub"?`,
        ]
      : []),
  ];
}

function commandOf({ config, subject, tenant, why, exceptSid, perSecond, yes, dryRun }: EndOptions): string {
  const given = [
    ['--subject', subject],
    ['--tenant', tenant],
    ['--why', why],
    ['--except-sid', exceptSid],
    ['--per-second', String(perSecond)],
    ['--config', config],
  ].flatMap(([name, value]) => (value === undefined ? [] : [`${name} ${quoted(value)}`]));
  return [...given, '--sweep', ...(yes ? ['--yes'] : []), ...(dryRun ? ['--dry-run'] : [])].join(' ');
}

function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function isNobody({ known }: Done, swept: Swept | undefined): boolean {
  return known === 0 && (swept === undefined || (swept.isWhole && swept.found === 0));
}

export function exitStatusOf(done: Done, { untimed }: Reach, swept: Swept | undefined, { dryRun }: EndOptions): number {
  if (done.missing.length > 0) return FAILED;
  if (swept && !swept.isWhole) return INCOMPLETE;
  if (isNobody(done, swept)) return UNKNOWN;
  if (swept) return swept.busy === 0 && swept.otherTenants.size === 0 ? ENDED : INCOMPLETE;
  return untimed.length > 0 && !dryRun ? INCOMPLETE : ENDED;
}

export function toJson(done: Done, { timed, untimed, beyond }: Reach, swept: Swept | undefined, { dryRun = false }: EndOptions): object {
  const { sessions, tenants, endedAt, instances, missing } = done;
  return {
    dryRun,
    sessions,
    tenants: tenants.filter((name) => name !== ''),
    endedAt: new Date(endedAt).toISOString(),
    instances,
    missing,
    timed,
    untimed: untimed.map(({ name }) => name),
    beyond,
    ...(swept ? { sweep: { ...swept, otherTenants: Object.fromEntries(swept.otherTenants) } } : {}),
  };
}
