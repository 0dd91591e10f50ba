import { createClaim, createDoneNote } from '../redis/claim.js';
import type { RedisConnection } from '../redis/connection.js';
import { chooseWriting, type FleetSecrets } from '../redis/fleet-keyring.js';
import type { SignedValue } from '../redis/signed-value.js';
import type { Tools } from '../telemetry/tools.js';
import { type Announcement, namesOf } from './announcement.js';
import type { DeniedSecrets } from './denied-secrets.js';

export interface SecretRotationOptions extends Pick<Tools, 'log' | 'audit'> {
  readonly secrets: FleetSecrets;
  readonly denied: DeniedSecrets;
  readonly values: readonly Pick<SignedValue<unknown>, 'name' | 'isOutdated' | 'writeAnew' | 'forget'>[];
  /** Who else is alive, the longest first. */
  readonly others: () => readonly Announcement[];
  /** Reads anew who else is there. Never rejects. */
  readonly lookForOthers: () => Promise<void>;
  readonly strangers: () => number;
  readonly connection: Pick<RedisConnection, 'client'>;
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  /** Writes again what has ended, under the secret that writes now. */
  readonly ends: {
    /** Both give how many; undefined where `goesOn`, asked before each page, was false. Reject with what ioredis rejects with. */
    writePersons(goesOn: () => Promise<boolean>): Promise<number | undefined>;
    writeSessions(goesOn: () => Promise<boolean>): Promise<number | undefined>;
  };
  /** Writes the notes on cookie secrets under the secret that writes now. Rejects with what ioredis rejects with. */
  readonly writeCookieSecrets: () => Promise<void>;
  /** Publishes the ends of the event stream under the secret that writes now; resolves when all are there. */
  readonly writeEvents: () => Promise<void>;
  /** Forgets what was learned from Redis, and may have been written by somebody who has a secret that leaked. */
  readonly forgetLearned: () => void;
  /** Called where another secret writes or opens here: the others should hear of it at once. */
  readonly onChange: () => void;
  /** Names this instance. */
  readonly random: { token(bytes: number): string };
}

/** Follows the fleet from one secret to the next. */
export interface SecretRotation {
  /** Hears which secrets are out of use, and writes with the newest that every live instance opens. Never rejects. */
  sync(): Promise<void>;
  /** For an operator, a sentence each. */
  readonly problems: readonly string[];
  close(): void;
}

const AGAIN_MS = 1000;

export function createSecretRotation(options: SecretRotationOptions): SecretRotation {
  const { secrets, denied, values, others, lookForOthers, strangers, connection, prefix, ends, writeCookieSecrets, writeEvents } = options;
  const { forgetLearned, onChange, random, log, audit } = options;
  const claim = createClaim(connection.client, `${prefix}secrets-rewriting`, random.token(9));
  const done = createDoneNote(connection.client, `${prefix}secrets-rewritten`);
  let isWriting = false;
  /** Those out of use of which it was told; of those that were so at the start nothing is new. */
  const told = new Set(denied.all.map(({ name, how }) => `${name} ${how}`));
  /** The secret under which all of it was written, as far as this instance knows; empty while it is being written. */
  let written: string | undefined;
  /** Whether the user of Redis may not look for ends of sessions. */
  let mayNotScan = false;
  let closed = false;

  async function hearDenied(): Promise<void> {
    await denied.sync();
    const news = denied.all.filter(({ name, how }) => !told.has(`${name} ${how}`));
    if (news.length === 0) return;
    for (const { name, how } of news) told.add(`${name} ${how}`);
    for (const { name, how, why } of news) audit('fleet.secret-denied', { secret: name, how, why });
    if (news.some(({ how }) => how === 'revoked')) {
      for (const value of values) value.forget();
      forgetLearned();
    }
    onChange();
  }

  async function choose(): Promise<void> {
    const chosen = () => chooseWriting(secrets, others(), strangers());
    // Somebody may have started since the others were last heard of.
    if (chosen() !== secrets.writes) await lookForOthers();
    if (secrets.writeWith(chosen())) {
      audit('fleet.secret-activated', { secret: secrets.writes });
      onChange();
    }
    // The values are written last: where none stands under another secret, all has been written.
    if (written === undefined && !(await hasOutdated())) written = secrets.writes;
    if (secrets.writes !== written) writeAnew();
  }

  async function hasOutdated(): Promise<boolean> {
    for (const value of values) if (await value.isOutdated()) return true;
    return false;
  }

  /** What has ended. All else is written when it is used, or lapses. One instance does it for all. */
  async function writeEnds(name: string): Promise<boolean> {
    const goesOn = async () => !closed && secrets.writes === name && (await claim.take('secrets'));
    if ((await done.read()) === name) return true;
    if (!(await goesOn())) return false;
    // Begun, it is done under no other any more.
    await done.write('');
    const persons = await ends.writePersons(goesOn);
    if (persons === undefined) return false;
    const sessions = await ends.writeSessions(goesOn).catch(unlessForbidden);
    if (sessions === undefined) return false;
    await done.write(name);
    await claim.release('secrets');
    audit('fleet.secret-rewritten', { secret: name, ends: persons + sessions });
    return true;
  }

  /** A user with no more rights than an instance needs may not SCAN: then the command that takes the old secret out of use does it. */
  function unlessForbidden(error: unknown): number {
    if (!(error instanceof Error) || !error.message.startsWith('NOPERM')) throw error;
    mayNotScan = true;
    return 0;
  }

  async function writeEverything(name: string, events: Promise<void>): Promise<boolean> {
    if (!(await writeEnds(name))) return false;
    // An instance that could open none of it before is to know what has ended once it knows the keys.
    await events;
    // Each instance: another one may have written under the old secret since.
    await writeCookieSecrets();
    for (const value of values) await value.writeAnew();
    return true;
  }

  function writeAnew(): void {
    if (isWriting) return;
    isWriting = true;
    void run().finally(() => {
      isWriting = false;
    });
  }

  async function run(): Promise<void> {
    let events: { readonly under: string; readonly written: Promise<void> } | undefined;
    while (!closed && secrets.writes !== written) {
      const name = secrets.writes;
      written = '';
      // Every instance publishes what it knows: the stream itself makes one of it.
      if (events?.under !== name) events = { under: name, written: writeEvents() };
      const isDone = await writeEverything(name, events.written).catch((error: unknown) => {
        log.debug({ err: error }, 'what stands in Redis could not be written under the new fleet secret; trying again');
        return false;
      });
      if (isDone) written = name;
      else await new Promise((resolve) => setTimeout(resolve, AGAIN_MS).unref());
    }
  }

  return {
    async sync() {
      // While Redis is away nothing is known of the others either.
      await hearDenied()
        .then(choose)
        .catch((error: unknown) => log.debug({ err: error }, 'the fleet secrets that are out of use cannot be read'));
    },

    get problems() {
      const lost = secrets.lost.map(
        (name) =>
          `fleetSecretFile has lost the secret ${name}, which opens here until the next restart: put it back, or take it out with crossfade secrets finish ${name}`,
      );
      const [newest] = secrets.inFile;
      const waits = newest === undefined || newest === secrets.writes ? [] : others().filter(({ opens }) => !opens?.includes(newest));
      const names = waits.map(namesOf(others())).join(', ');
      return [
        ...lost,
        ...(secrets.opens.length === 0 ? ['every secret of fleetSecretFile is out of use: crossfade secrets list names them'] : []),
        ...(mayNotScan && secrets.opens.length > 1
          ? ['ends of sessions stand under the fleet secret before: the user of Redis may not SCAN. Run crossfade secrets finish with one that may']
          : []),
        ...(waits.length > 0 ? [`the fleet secret ${newest} does not write until ${names} has it as well: add it to fleetSecretFile there`] : []),
      ];
    },

    close() {
      closed = true;
    },
  };
}
