import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type DirectoryWatch, watchDirectory } from '../file-watch.js';
import type { Reread } from './config.js';

/** A setting whose value stands in files, as they are now. */
export interface Live<T> {
  /** The last value that was good. */
  readonly current: T;
  /** Calls back with each new value. */
  onChange(listener: (value: T) => void): void;
  /** Looks into the files now. */
  reread(): void;
}

export interface Followed<T> {
  /** The setting: `redis`, `sessions[0].secretsFile`. */
  readonly at: string;
  /** Absolute paths. None: the value never changes. */
  readonly files: readonly string[];
  readonly initial: T;
  /** `current`: what is in force, for the parts that cannot be read now. */
  readonly read: (current: T) => Reread<T>;
}

export interface LiveFiles {
  follow<T>(followed: Followed<T>): Live<T>;
  /** Looks into all files now. */
  rereadAll(): void;
  /** Calls back whenever a file has changed and its value is in force. */
  onChange(listener: () => void): void;
  /** What is wrong with files that have changed, a sentence each: the values before stay in force. */
  readonly problems: readonly string[];
  close(): void;
}

/** Hears what becomes of a file that has changed. `setting`: the one that names it. */
export interface FileReports {
  changed(setting: string): void;
  rejected(setting: string, reason: string): void;
}

/** A file may be caught half-written: what is wrong is told only if it still is after this time. */
const AGAIN_MS = 200;

/** Follows files with secrets while the bridge runs. A bad new file changes nothing and is named. */
export function createLiveFiles(reports: FileReports): LiveFiles {
  const watches = new Map<string, DirectoryWatch>();
  const rereads: { readonly files: readonly string[]; reread(): void }[] = [];
  const problems = new Map<string, string>();
  const anyListeners: (() => void)[] = [];
  let closed = false;

  function watch(file: string): void {
    const directory = dirname(file);
    if (watches.has(directory)) return;
    const onChange = () => {
      for (const { files, reread } of rereads) if (files.some((one) => dirname(one) === directory)) reread();
    };
    watches.set(directory, watchDirectory(directory, onChange));
  }

  return {
    follow({ at, files, initial, read }) {
      const listeners: ((value: typeof initial) => void)[] = [];
      let current = initial;
      let inForce = contentOf(files);
      let looksAgain = false;

      function look(isSecondLook: boolean): void {
        if (isSecondLook) looksAgain = false;
        const content = contentOf(files);
        if (closed || (content === inForce && !problems.has(at))) return;
        const found = read(current);
        const wrong = 'problems' in found ? found.problems : [];
        if (wrong.length === 0 && 'value' in found) {
          problems.delete(at);
          replaceBy(found.value, content);
          return;
        }
        if (!isSecondLook) {
          if (!looksAgain) setTimeout(look, AGAIN_MS, true).unref();
          looksAgain = true;
          return;
        }
        const reason = wrong.map(({ path, message }) => `${path}: ${message}`).join('; ');
        if (problems.get(at) !== reason) {
          problems.set(at, reason);
          reports.rejected(at, reason);
        }
        if ('value' in found) replaceBy(found.value, content);
      }

      function replaceBy(value: typeof initial, content: string): void {
        if (content === inForce) return;
        inForce = content;
        current = value;
        reports.changed(at);
        for (const listener of listeners) listener(value);
        for (const listener of anyListeners) listener();
      }

      const reread = () => look(false);
      if (files.length > 0) rereads.push({ files, reread });
      files.forEach(watch);
      return {
        get current() {
          return current;
        },
        onChange: (listener) => void listeners.push(listener),
        reread,
      };
    },
    onChange: (listener) => void anyListeners.push(listener),
    rereadAll() {
      for (const { reread } of rereads) reread();
    },
    get problems() {
      return [...problems.values()].map((reason) => `${reason}; what the file held before stays in force`);
    },
    close() {
      closed = true;
      for (const watched of watches.values()) watched.close();
    },
  };
}

/** A digest of what stands in the files, so that no secret is kept twice. */
function contentOf(files: readonly string[]): string {
  const hash = createHash('sha256');
  for (const file of files) {
    try {
      hash.update(readFileSync(file)).update('\0');
    } catch {
      hash.update('\0gone\0');
    }
  }
  return hash.digest('base64');
}
