import { randomBytes } from 'node:crypto';
import { chmodSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { loadConfig } from '../config/load.js';
import { pseudonymsOf, Secret } from '../config/secret.js';
import { errnoOf } from '../errors.js';
import { nameOfSecret } from '../redis/fleet-keyring.js';
import type { FleetSecretOptions } from './fleet-secrets.js';
import { print } from './print.js';

/** `crossfade secrets add`: a new fleet secret in front of the others; with the first of them the line that keeps the names of persons. */
export async function addSecret({ config: path, json = false }: FleetSecretOptions): Promise<void> {
  const { fleetSecret } = await loadConfig(path);
  const { secrets, pseudonyms } = fleetSecret.current;
  const [newest] = secrets;
  if (!newest) throw new Error('fleetSecretFile holds no secret');
  if (secrets.length > 1)
    throw new Error(
      `fleetSecretFile holds a newer secret already, ${nameOfSecret(newest)}: nothing was done. Bring the file to every instance, and take the old line out once crossfade secrets finish has said so`,
    );
  const added = new Secret(randomBytes(32).toString('base64url'));
  const lines = [added.reveal(), ...secrets.map((secret) => secret.reveal()), `pseudonyms=${(pseudonyms ?? pseudonymsOf(newest)).reveal()}`];
  replaceFile(fleetSecret.file, `${lines.join('\n')}\n`);
  const name = nameOfSecret(added);
  if (json) {
    print.json({ file: fleetSecret.file, added: name, secrets: [name, ...secrets.map(nameOfSecret)] });
    return;
  }
  print.line(`${fleetSecret.file} holds a new secret, ${name}, before ${nameOfSecret(newest)}.`);
  print.line('Bring this file to every instance, in any order: running ones read it again. The new secret writes once all have it.');
  print.line(`crossfade secrets list says how far the fleet is; crossfade secrets finish ${nameOfSecret(newest)} ends the old one.`);
  print.line('A release 0.1 cannot be started with this file.');
}

/** A command takes milliseconds: what is older was left by one that was killed. */
const HALF_WRITTEN_MS = 60_000;

/** Replaces the file in one step, because an instance may read it at any time. The file keeps its mode. */
function replaceFile(file: string, text: string): void {
  const target = realpathSync(file);
  // One name, so that two commands at once do not both begin from the same file.
  const temporary = `${target}.new`;
  const leftAt = statSync(temporary, { throwIfNoEntry: false })?.mtimeMs;
  if (leftAt !== undefined && Date.now() - leftAt > HALF_WRITTEN_MS) rmSync(temporary, { force: true });
  try {
    const { mode } = statSync(target);
    writeFileSync(temporary, text, { mode: 0o600, flag: 'wx' });
    chmodSync(temporary, mode & 0o777);
    if (readFileSync(temporary, 'utf8') !== text) throw new Error('the disk is full');
    renameSync(temporary, target);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST')
      throw new Error(`${temporary} is there: the same command is running, or was killed. Nothing was done. Run this again in a minute`);
    rmSync(temporary, { force: true });
    throw new Error(`${file} cannot be written (${errnoOf(error)}): nothing was done. Run this where the file can be written, and bring it here`);
  }
}
