import type { Config } from '../config/config.js';
import { type DirectoryWatch, watchDirectory } from '../file-watch.js';
import { UnreadableValue } from '../redis/signed-value.js';
import type { Tools } from '../telemetry/tools.js';
import { type Agree, type Agreed, type AgreementOptions, createAgreement, type Policy } from './agreement.js';
import type { DenyList } from './deny-list.js';
import { createSigningHealth, SIGNING_STATES, type SigningState } from './health.js';
import { type LoadedKey, loadKeyDirectory, type RejectedFile } from './load.js';
import type { FleetMember, KeyHold } from './rotation.js';
import { type Probe, selfTest } from './self-test.js';
import type { SigningStand } from './stand.js';

export interface SigningOptions extends Omit<AgreementOptions, 'ring'>, Pick<Tools, 'log' | 'audit' | 'metrics'> {
  readonly stand: SigningStand;
  readonly config: Config['keys'];
  readonly denyList: DenyList;
  readonly probe: Probe;
  /** What is wrong with the clock of this machine, a sentence each. */
  readonly clockProblems: () => readonly string[];
  /** Called after a pass, with what it has come to. */
  readonly onPass: () => void;
}

export interface SigningReport {
  readonly state: SigningState;
  readonly canSign: boolean;
  readonly activeKid?: string;
  readonly rejected: readonly RejectedFile[];
  /** Why it is not healthy, a sentence each. */
  readonly problems: readonly string[];
  /** Keys that do not sign yet, and what holds them. */
  readonly held: readonly { readonly kid: string; readonly hold: KeyHold }[];
}

/** The keys and their health: loads, tests, watches, and tells Redis what verifies. */
export interface Signing {
  /** The key to sign with; undefined while signing is broken or not this instance's business. */
  signingKey(): LoadedKey | undefined;
  readonly canSign: boolean;
  /** Whether tokens for this audience may be signed: all live instances must accept it, where it is one of the config. */
  mayIssue(audience: string): boolean;
  /** Issuers with their audiences under which tokens are accepted beside those of the config. */
  readonly policies: readonly Policy[];
  report(): SigningReport;
  /** Loads the keys and tests them, and goes on doing so; broken keys do not stop the start. Never rejects. */
  start(): Promise<void>;
  /** Reads the directory and tests every key anew. Never rejects. */
  reload(): Promise<void>;
  /** Ends the watch; resolves when a pass under way has ended. */
  close(): Promise<void>;
}

/** How soon a better result is confirmed, and how soon Redis is asked again while it was never reached. */
const SOON_MS = 300;

export function createSigning(options: SigningOptions): Signing {
  const { config, stand, denyList, probe, blocked, clockProblems, onPass, log, audit, metrics } = options;
  const { ring } = stand;
  const agree: Agree = createAgreement({ ...options, ring });
  const health = createSigningHealth((from, to) => {
    for (const state of SIGNING_STATES) metrics.signingHealth.set({ state }, state === to ? 1 : 0);
    audit('signing.changed', { from: from ?? 'starting', to, problem: to === 'healthy' ? undefined : stand.problems[0] });
  });
  let running: Promise<void> | undefined;
  let again = false;
  let redisAway = false;
  /** Why the fleet's keys cannot be understood, in words; undefined: they can, or Redis is away. */
  let unreadable: string | undefined;
  /** The key that the last agreement chose: what a time without permission to sign leaves as it is. */
  let agreedKid: string | undefined;
  let denialsRead = false;
  let soon: NodeJS.Timeout | undefined;
  let watch: DirectoryWatch | undefined;
  let interval: NodeJS.Timeout | undefined;
  let closed = false;

  async function readFiles(): Promise<void> {
    const found = await loadKeyDirectory(config);
    const refused = [...found.rejected];
    const known = new Set(ring.own.map(({ kid }) => kid));
    const added = found.keys.filter(({ kid }) => !known.has(kid) && !denyList.kids.has(kid));
    for (const { kid, file } of found.keys) {
      const denied = denyList.kids.get(kid);
      if (denied && !known.has(kid)) refused.push({ file, reason: `holds a key that was ${denied.how}: remove the file` });
    }
    const failed = await selfTest(added, ring.jwksWith(added), probe);
    for (const [{ file }, reason] of failed) refused.push({ file, reason });
    const accepted = added.filter((key) => !failed.has(key));
    ring.add(accepted);
    for (const { kid, file } of accepted) audit('key.accepted', { kid, file });
    for (const { file, reason } of refused) {
      if (!stand.rejected.some((known) => known.file === file && known.reason === reason)) {
        audit('key.rejected', { file, reason });
      }
    }
    stand.rejected = refused;
    metrics.rejectedKeyFiles.set(refused.length);
    stand.files = new Map(found.keys.map(({ kid, file }) => [kid, file]));
  }

  /** The keys of this instance that sign what the JWKS as it is served verifies. */
  async function testRing(): Promise<LoadedKey[]> {
    const { own } = ring;
    const failed = await selfTest(own, ring.jwks?.body ?? '', probe);
    for (const [{ kid }, reason] of failed) log.error({ kid, reason }, 'a key failed its self-test');
    return own.filter((key) => !failed.has(key));
  }

  /** While Redis is away, what was agreed before stands, as far as the keys are still sound. */
  async function tryToAgree(sound: readonly LoadedKey[]): Promise<Agreed> {
    try {
      if (!denialsRead) throw new Error('what is out of use was not read yet');
      const next = await agree(sound);
      redisAway = false;
      unreadable = undefined;
      if (blocked().length === 0) agreedKid = next.active;
      return next;
    } catch (error) {
      unreadable = error instanceof UnreadableValue ? error.message : undefined;
      if (!redisAway) log.warn({ err: error }, "the fleet's keys cannot be read from Redis; going on with those in memory");
      redisAway = true;
      const goesOn = blocked().length === 0 && sound.some(({ kid }) => kid === agreedKid);
      return { ...stand.agreed, active: goesOn ? agreedKid : undefined };
    }
  }

  /** What was taken out of use comes out of the ring before anything is done with it. */
  async function hearDenials(): Promise<void> {
    try {
      await denyList.sync();
      denialsRead = true;
    } catch (error) {
      log.debug({ err: error }, 'what is out of use cannot be read from Redis; going on with what is known');
    }
    ring.deny(new Set(denyList.kids.keys()));
  }

  async function pass(): Promise<void> {
    await hearDenials();
    await readFiles();
    const sound = await testRing();
    const before = ring.active?.kid;
    stand.agreed = await tryToAgree(sound);
    const { active } = stand.agreed;
    ring.activate(active);
    if (active !== undefined && active !== before) audit('key.activated', { kid: active });

    stand.problems = describeProblems(sound);
    metrics.fleetDiffers.set(stand.agreed.against ? 1 : 0);
    health.observe(
      config.use === 'verify' ? stateOfVerifier() : active === undefined ? 'broken' : stand.problems.length > 0 ? 'degraded' : 'healthy',
    );
    stand.state = health.state;
    for (const phase of ['next', 'active', 'retiring'] as const) {
      metrics.ringKeys.set({ phase }, ring.kids.filter((kid) => ring.phaseOf(kid) === phase).length);
    }
    onPass();
  }

  function stateOfVerifier(): SigningState {
    return ring.kids.length > 0 ? 'healthy' : 'broken';
  }

  function describeProblems(sound: readonly LoadedKey[]): string[] {
    const { agreed, files } = stand;
    const { active } = agreed;
    const found = stand.rejected.map(({ file, reason }) => `${file} ${reason}`);
    for (const key of ring.own) {
      if (key.kid === active && !files.has(key.kid))
        found.push(`the key of ${key.file}, which signs, is no longer in the directory: a restart would do without it`);
      if (!sound.includes(key)) found.push(`${key.file} fails its self-test`);
    }
    found.push(...clockProblems());
    for (const [audience, missing] of config.use === 'sign' && !agreed.against ? agreed.unaccepted : [])
      found.push(`no token is issued here for ${audience} until ${missing.map(({ host }) => host).join(', ')} accept it as well: add it there`);
    if (config.use === 'sign' && active === undefined && blocked().length === 0) found.push(whyNoneSigns(sound));
    found.push(...blocked().map((why) => `${why}: this instance signs nothing`));
    return found;
  }

  function whyNoneSigns(sound: readonly LoadedKey[]): string {
    const { against, held } = stand.agreed;
    if (against) return describeDifference(options.fleet().self, against);
    if (sound.length === 0) return 'no usable signing key: crossfade keys rotate makes one';
    if (unreadable !== undefined) return `${unreadable}: no key may sign before they can be read`;
    if (!ring.fleetKeysRead) return 'no key may sign before the keys of the fleet were read from Redis';
    const holds = held.map(({ key, hold }) => `${key.file} ${describeKeyHold(hold, config.publishSeconds)}`);
    return `no key may sign yet: ${holds.join('; ')}`;
  }

  function reload(): Promise<void> {
    if (running) {
      again = true;
      return running;
    }
    running = (async () => {
      do {
        again = false;
        await pass();
      } while (again && !closed);
    })()
      .catch((error: unknown) => log.error({ err: error }, 'the keys could not be tested'))
      .finally(() => {
        running = undefined;
        clearTimeout(soon);
        if (!closed && (health.improving || !ring.fleetKeysRead)) soon = setTimeout(() => void reload(), SOON_MS);
        soon?.unref();
      });
    return running;
  }

  return {
    signingKey: () => stand.signingKey,
    get canSign() {
      return stand.signingKey !== undefined;
    },
    mayIssue: (audience) => !stand.agreed.unaccepted.has(audience),
    get policies() {
      return stand.agreed.policies;
    },
    report() {
      const { state, rejected, problems, agreed } = stand;
      const held = agreed.held.map(({ key: { kid }, hold }) => ({ kid, hold }));
      return { state, canSign: stand.signingKey !== undefined, rejected, problems, held, ...(ring.active ? { activeKid: ring.active.kid } : {}) };
    },
    async start() {
      watch = watchDirectory(config.directory, () => void reload());
      await reload();
      interval = setInterval(() => void reload(), config.selfTestSeconds * 1000);
      interval.unref();
    },
    reload,
    async close() {
      closed = true;
      watch?.close();
      clearInterval(interval);
      clearTimeout(soon);
      await running;
    },
  };
}

/** What keeps a key from signing, in words. */
export function describeKeyHold(hold: KeyHold, publishSeconds: number): string {
  switch (hold.why) {
    case 'time':
      return `signs from ${new Date(hold.until).toISOString()}, as its name says`;
    case 'publishing':
      return `is published for keys.publishSeconds (${publishSeconds}) first, until ${new Date(hold.until).toISOString()}`;
    case 'fleet':
      return `is not verified yet by ${hold.hosts.join(', ')}`;
  }
}

/** Why an instance does not sign whose issuer is not that of the others. */
export function describeDifference(self: FleetMember, most: FleetMember): string {
  return `issuer ${self.issuer} is not that of most live instances (${most.issuer}): this instance does not sign`;
}
