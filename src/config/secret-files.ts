import { readFileSync } from 'node:fs';
import { errnoOf } from '../errors.js';
import type { ConfigProblem, FileSecrets, FleetSecretFile, FleetSecretLines } from './config.js';
import { PSEUDONYM_BYTES, Secret } from './secret.js';

/** The text of a file, without the mark that some editors put in front of UTF-8. A file that cannot be read, or is empty, is a problem. */
function readText(path: string, at: string, problems: ConfigProblem[]): string {
  try {
    const text = readFileSync(path, 'utf8').replace(/^\ufeff/, '');
    if (text.trim() === '')
      problems.push({
        path: at,
        message: `the file that it names is empty${at.endsWith('secretsFile') ? ": put the app's cookie secrets (app.keys in Koa, secret in Express) there, one a line, newest first" : ''}`,
      });
    return text;
  } catch (error) {
    // Not the path: somebody may have put the secret itself there.
    problems.push({ path: at, message: `the file that it names cannot be read (${errnoOf(error)})` });
    return '';
  }
}

/** The one secret of a file, without white space around it: editors and secret stores add line ends. */
export function readSecret(path: string, at: string, problems: ConfigProblem[]): string {
  return readText(path, at, problems).trim();
}

const AT_FLEET_SECRET = 'fleetSecretFile';
const PSEUDONYMS_LINE = /^pseudonyms=(.*)$/;

/** One secret a line, newest first; with more than one, a line `pseudonyms=` that keeps the names of persons as they are. */
export function readFleetSecret(file: string, problems: ConfigProblem[]): FleetSecretFile {
  const readWith = (found: ConfigProblem[]) => parseFleetSecrets(readText(file, AT_FLEET_SECRET, found), found);
  return {
    file,
    current: readWith(problems),
    read() {
      const found: ConfigProblem[] = [];
      const value = readWith(found);
      return found.length > 0 ? { problems: found } : { value };
    },
  };
}

function parseFleetSecrets(text: string, problems: ConfigProblem[]): FleetSecretLines {
  const lines = text.split(/\r?\n/).flatMap((line) => (line.trim() === '' ? [] : [line.trim()]));
  const pseudonyms = lines.flatMap((line) => PSEUDONYMS_LINE.exec(line)?.[1] ?? []);
  const secrets = lines.filter((line) => !PSEUDONYMS_LINE.test(line));
  const add = (message: string) => void problems.push({ path: AT_FLEET_SECRET, message });
  if (lines.length > 0 && secrets.length === 0) add('the file holds no secret: one a line, base64url of 32 random bytes');
  if (secrets.some((line) => !isBase64Url(line, 32))) add('the file must hold base64url of 32 random bytes, one a line; crossfade init makes one');
  if (new Set(secrets).size < secrets.length) add('the file holds the same secret twice');
  if (secrets.length > MAX_FLEET_SECRETS) add(`the file holds ${secrets.length} secrets: ${MAX_FLEET_SECRETS} at most`);
  if (pseudonyms.length > 1) add('the file holds more than one line pseudonyms=');
  if (pseudonyms.some((value) => !isBase64Url(value, PSEUDONYM_BYTES))) add('the line pseudonyms= is not one that crossfade secrets add has written');
  if (secrets.length > 1 && pseudonyms.length === 0)
    add(
      'the file holds several secrets and no line pseudonyms=: names of persons would change. Put the old file back, and let crossfade secrets add write the new one',
    );
  const [value] = pseudonyms;
  return { secrets: secrets.map((line) => new Secret(line)), ...(value === undefined ? {} : { pseudonyms: new Secret(value) }) };
}

function isBase64Url(text: string, bytes: number): boolean {
  return /^[A-Za-z0-9_-]+$/.test(text) && Buffer.from(text, 'base64url').length === bytes;
}

/** Each is tried where a value does not say which it was written under. */
const MAX_FLEET_SECRETS = 8;

/** Secrets of a file that may change while the bridge runs. */
function fileSecrets(
  file: string,
  at: string,
  parse: (text: string, problems: ConfigProblem[]) => readonly string[],
  problems: ConfigProblem[],
): FileSecrets {
  const readWith = (found: ConfigProblem[]) => parse(readText(file, at, found), found).map((value) => new Secret(value));
  return {
    file,
    at,
    current: readWith(problems),
    read() {
      const found: ConfigProblem[] = [];
      const value = readWith(found);
      return found.length > 0 ? { problems: found } : { value };
    },
  };
}

export function readAdminToken(file: string, problems: ConfigProblem[]): FileSecrets {
  const at = 'admin.tokenFile';
  return fileSecrets(
    file,
    at,
    (text, found) => {
      const token = text.trim();
      if (token !== '' && token.length < 20)
        found.push({ path: at, message: 'the file must hold at least 20 random characters; crossfade init makes one' });
      return [token];
    },
    problems,
  );
}

/** One a line, newest first. A line `-` stands before those that are taken out of use: they are in the list, marked by it. */
export function readSessionSecrets(file: string, at: string, problems: ConfigProblem[]): FileSecrets {
  return fileSecrets(
    file,
    at,
    (text, found) => {
      const lines = text.split(/\r?\n/).filter((line) => line !== '');
      if (lines.some((line) => line !== line.trim())) found.push({ path: at, message: 'a secret in the file starts or ends with white space' });
      // A secret may begin with a -: only what is known can be taken out by one in front of it, and that is not known here.
      if (lines[0] === '-') found.push({ path: at, message: 'the file holds no cookie secret that is in use: those behind a - are taken out' });
      return lines;
    },
    problems,
  );
}

export function readSecretHashes(file: string, at: string, problems: ConfigProblem[]): FileSecrets {
  return fileSecrets(
    file,
    at,
    (text, found) => {
      const lines = text.split(/\s+/).filter((line) => line !== '');
      if (lines.some((line) => !/^[0-9a-f]{64}$/i.test(line)))
        found.push({ path: at, message: 'the file must hold the hex SHA-256 of the secret, one a line; crossfade init --client ID makes one' });
      return lines.map((line) => line.toLowerCase());
    },
    problems,
  );
}
