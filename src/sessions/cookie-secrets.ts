import { pseudonym, Secret } from '../config/secret.js';
import { type CookieSecret, type CookieSecrets, EntrySecrets, type EntrySecretsOptions, type Note } from '../formats/entry-secrets.js';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { absentIfForeign, isWrongType } from '../redis/script.js';
import type { Tools } from '../telemetry/tools.js';
import { createNoteForms, fieldOf, PROLONG_MS, partsOf } from './cookie-secret-notes.js';
import { type CookieSecretStatus, problemsOf, statusOf } from './secret-status.js';

export interface CookieSecretsOptions extends Pick<Tools, 'log' | 'audit'> {
  readonly entries: readonly EntrySecretsOptions[];
  readonly client: RedisClient;
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  readonly secrets: FleetSecrets;
  /** Whether nobody may open what is written here. */
  readonly isUnheard: () => boolean;
  /** By Redis' clock, as well as it is known here, in ms. */
  readonly nowMs: () => number;
}

export interface AllCookieSecrets {
  /** Undefined for an entry whose cookie is not signed. */
  forEntry(entry: string): CookieSecrets | undefined;
  /**
   * Reads what the fleet knows, and tells it what is known here and Redis does not have (any more). Rejects with what ioredis rejects with.
   */
  sync(): Promise<void>;
  /** Forgets what was noted under a fleet secret that is revoked by now. */
  forgetRevoked(): void;
  /** This is an instance: from the next `sync` on its files count for the fleet. */
  join(): void;
  /** Ends a secret on all instances, whatever their files say. False: no such secret is known. Rejects with what ioredis rejects with. */
  end(name: string, why: string): Promise<boolean>;
  readonly all: readonly CookieSecretStatus[];
  /** Names of those that are ended. */
  readonly ended: readonly string[];
  /** For an operator, a sentence for each secret that a file has lost. */
  readonly problems: readonly string[];
  /** Calls back with each other list of secrets that verify here. */
  onChange(listener: () => void): void;
  /** Calls back where the other instances should read what was noted here, at once. */
  onNews(listener: () => void): void;
}

/** How long Redis keeps what was noted of a secret: longer than any session that it signed should live. */
const KEEP_MS = 90 * 86_400_000;
const NAME_LENGTH = 10;

/** The secrets with which apps sign their cookies, kept alike on all instances while their files change. */
export function createCookieSecrets(options: CookieSecretsOptions): AllCookieSecrets {
  const { client, prefix, secrets, isUnheard, nowMs, log, audit } = options;
  const key = `${prefix}cookie-secrets`;
  const forms = createNoteForms(secrets, nowMs);
  const listeners: (() => void)[] = [];
  const newsListeners: (() => void)[] = [];
  /** Fields that Redis is still to be told. */
  const unwritten = new Set<string>();
  let writing: Promise<void> | undefined;
  let joins = false;
  let hasJoined = false;

  const entries = new Map(
    options.entries.map((one): [string, EntrySecrets] => {
      const nameOf = (text: string) =>
        pseudonym(secrets.names['cookie-secret'], `${one.name}\0${text}`).replaceAll(/[-_]/g, '').slice(0, NAME_LENGTH);
      return [one.name, new EntrySecrets(one, nameOf, nowMs, (name) => noteSeen(one.name, name))];
    }),
  );
  for (const entry of entries.values()) {
    entry.readFile();
    entry.update();
    entry.file.onChange(() => fileChanged(entry));
  }

  function noteSeen(entry: string, name: string): void {
    entries.get(entry)?.signedWith.add(name);
    unwritten.add(fieldOf('seen', entry, name));
    void write();
  }

  function put(entry: EntrySecrets, name: string, note: Omit<Note, 'at'>): void {
    // Later than what it takes the place of, whatever clocks say.
    const at = Math.max(nowMs(), (entry.notes.get(name)?.at ?? 0) + 1);
    const restored = note.restored ?? (note.state !== 'ended' && entry.notes.get(name)?.restored === true);
    entry.notes.set(name, { ...note, at, ...(restored ? { restored } : {}) });
    unwritten.add(fieldOf('note', entry.entry, name));
  }

  function file(entry: EntrySecrets, { name, secret }: CookieSecret, restored = false): void {
    put(entry, name, { state: 'filed', secret: secret.reveal(), ...(restored ? { restored } : {}) });
  }

  function fileChanged(entry: EntrySecrets): void {
    const { inFile: before, marked: markedBefore } = entry;
    entry.readFile();
    const kept = new Set([...entry.inFile, ...entry.marked].map(({ name }) => name));
    for (const one of before) if (!kept.has(one.name)) drop(entry, one);
    for (const one of entry.inFile) {
      const isBack = !before.some(({ name }) => name === one.name);
      const isUnmarked = markedBefore.some(({ name }) => name === one.name);
      if (isUnmarked || (isBack && !entry.isEnded(one.name))) file(entry, one, isUnmarked);
      if (isUnmarked) audit('secret.restored', { entry: entry.entry, secret: one.name });
    }
    for (const { name } of entry.marked) endHere(entry, name, 'the line - of its file');
    warnOfEnded(entry);
    changed(entry);
    void write().then(() => {
      for (const listener of newsListeners) listener();
    });
  }

  function drop(entry: EntrySecrets, { name, secret }: CookieSecret): void {
    if (entry.isEnded(name)) return;
    const until = nowMs() + entry.keepSeconds * 1000;
    const note = entry.notes.get(name);
    const isKnown = note?.state === 'dropped';
    // The first who lost it says until when, and the last one where it was prolonged since.
    if (isKnown && (note.until ?? 0) <= until) return;
    put(entry, name, { state: 'dropped', secret: secret.reveal(), until });
    if (isKnown) return;
    audit('secret.dropped', { entry: entry.entry, secret: name, until: new Date(until).toISOString() });
    log.warn(
      { entry: entry.entry, secret: name, until: new Date(until).toISOString() },
      'secretsFile has lost a cookie secret: it goes on verifying for keepDroppedSecretSeconds; crossfade secrets drop ends it at once',
    );
  }

  function endHere(entry: EntrySecrets, name: string, why: string): void {
    if (entry.isEnded(name)) return;
    put(entry, name, { state: 'ended' });
    audit('secret.ended', { entry: entry.entry, secret: name, why });
  }

  function warnOfEnded(entry: EntrySecrets): void {
    for (const { name } of entry.inFile)
      if (entry.isEnded(name))
        log.warn({ entry: entry.entry, secret: name }, 'secretsFile holds a cookie secret that was dropped: it verifies nothing');
  }

  function changed(entry: EntrySecrets): void {
    if (entry.update()) for (const listener of listeners) listener();
  }

  /** What could not be written is written with the next heartbeat. */
  function write(): Promise<void> {
    writing ??= flush()
      .catch(() => undefined)
      .finally(() => {
        writing = undefined;
      });
    return writing;
  }

  async function flush(): Promise<void> {
    if (isUnheard()) return;
    const fields = [...unwritten];
    const values = Object.fromEntries(fields.flatMap((field) => textOf(field) ?? []));
    if (Object.keys(values).length === 0) return;
    // What changes meanwhile has to be written again.
    for (const field of fields) unwritten.delete(field);
    try {
      const replies = await client.multi().hset(key, values).pexpire(key, KEEP_MS).exec();
      for (const [error] of replies ?? []) if (error) throw error;
    } catch (error) {
      for (const field of fields) unwritten.add(field);
      // A key of another type is somebody else's: it counts as absent, and gives way.
      if (isWrongType(error)) await client.del(key);
      throw error;
    }
  }

  function textOf(field: string): [field: string, value: string][] | undefined {
    const { what, entry, name } = partsOf(field);
    if (what === 'seen') return [[field, forms.writeSeen(field)]];
    const note = entries.get(entry)?.notes.get(name);
    return note && [[field, forms.write(field, note)]];
  }

  function mergeFound(found: Readonly<Record<string, string>>): void {
    for (const [field, value] of Object.entries(found)) {
      const { what, entry: entryName, name } = partsOf(field);
      const entry = entries.get(entryName);
      if (entry && what === 'seen' && forms.isSeen(field, value)) entry.signedWith.add(name);
      const note = entry && what === 'note' ? forms.read(field, value, entry.keepSeconds) : undefined;
      if (entry && note) merge(entry, name, note);
    }
    // Redis may have lost what is known here, or have it under a secret of the fleet that is on its way out.
    for (const entry of entries.values()) {
      for (const name of entry.notes.keys()) addIfMissing(fieldOf('note', entry.entry, name));
      for (const name of entry.signedWith) addIfMissing(fieldOf('seen', entry.entry, name));
    }
    function addIfMissing(field: string): void {
      const value = found[field];
      if (value === undefined || secrets.isOutdated(value)) unwritten.add(field);
    }
  }

  /** The newest note counts, but for an end: that one stays until somebody undoes it. */
  function merge(entry: EntrySecrets, name: string, note: Note): void {
    const known = entry.notes.get(name);
    const isEnd = known?.state === 'ended' && note.state !== 'ended' && note.restored !== true;
    const isLateEnd = note.state === 'ended' && known !== undefined && known.state !== 'ended' && known.restored !== true;
    if (isLateEnd || (!isEnd && note.at >= (known?.at ?? 0))) entry.notes.set(name, note);
    else unwritten.add(fieldOf('note', entry.entry, name));
    // One that starts with an older file does not have the newest yet: that is no loss.
    const [newest] = entry.inFile;
    if (newest?.name === name && entry.notes.get(name)?.state === 'dropped') file(entry, newest);
    else if (joins) prolong(entry, name);
  }

  /** As long as the file of a live instance has it, it is not lost on the others: one may have started with an older file. */
  function prolong(entry: EntrySecrets, name: string): void {
    const here = entry.inFile.find((one) => one.name === name);
    const note = entry.notes.get(name);
    const keepMs = Math.max(entry.keepSeconds * 1000, PROLONG_MS);
    if (!here || entry.keepSeconds === 0 || note?.state !== 'dropped' || (note.until ?? 0) - nowMs() > keepMs / 2) return;
    put(entry, name, { state: 'dropped', secret: here.secret.reveal(), until: nowMs() + keepMs });
  }

  /** What somebody who has a fleet secret that leaked may have noted. What stands in a file here is noted anew. */
  function forgetRevoked(): void {
    for (const entry of entries.values()) {
      for (const [name, { under }] of entry.notes) if (secrets.isRevoked(under ?? [])) entry.notes.delete(name);
      if (joins) for (const one of entry.inFile) if (!entry.notes.has(one.name)) file(entry, one);
      changed(entry);
    }
    void write();
  }

  /** What the fleet had in its files and this one does not have was lost while it was stopped. */
  function compareFiles(): void {
    for (const entry of entries.values()) {
      // Now it is known which lines are a secret behind a -.
      entry.readFile();
      const marked = new Set(entry.marked.map(({ name }) => name));
      for (const [name, { state, secret }] of entry.notes) {
        if (state !== 'filed' || secret === undefined || entry.isInFile(name) || marked.has(name)) continue;
        drop(entry, { name, secret: new Secret(secret) });
      }
      for (const one of entry.inFile) {
        const note = entry.notes.get(one.name);
        if (!note || (note.state === 'dropped' && (note.until ?? 0) <= nowMs())) file(entry, one);
      }
      for (const { name } of entry.marked) endHere(entry, name, 'the line - of its file');
      warnOfEnded(entry);
    }
  }

  return {
    forEntry: (entry) => entries.get(entry),

    join() {
      joins = true;
    },

    forgetRevoked,

    async sync() {
      mergeFound(await client.hgetall(key).catch(absentIfForeign<Record<string, string>>({})));
      if (joins && !hasJoined) compareFiles();
      hasJoined = joins;
      for (const entry of entries.values()) changed(entry);
      await flush();
    },

    async end(name, why) {
      const entry = [...entries.values()].find((one) => one.isInFile(name) || one.notes.has(name) || one.signedWith.has(name));
      if (!entry) return false;
      endHere(entry, name, why);
      changed(entry);
      await flush();
      return true;
    },

    get all() {
      return [...entries.values()].flatMap(statusOf);
    },

    get ended() {
      return [...entries.values()].flatMap((entry) => [...entry.notes.keys()].filter((name) => entry.isEnded(name))).sort();
    },

    get problems() {
      return [...entries.values()].flatMap(problemsOf);
    },

    onChange: (listener) => void listeners.push(listener),
    onNews: (listener) => void newsListeners.push(listener),
  };
}
