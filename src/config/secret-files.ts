import { readFileSync } from 'node:fs';
import { errnoOf } from '../errors.js';
import type { ConfigProblem } from './config.js';
import { Secret } from './secret.js';

/** The text of a file without the line end that editors add; a file that cannot be read is a problem, and ''. */
export function readSecretFile(path: string, at: string, problems: ConfigProblem[]): string {
  try {
    const text = readFileSync(path, 'utf8').replace(/\r?\n$/, '');
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

export function readFleetSecret(text: string, problems: ConfigProblem[]): Secret {
  if (text.trim() !== '' && (!/^[A-Za-z0-9_-]+$/.test(text) || Buffer.from(text, 'base64url').length !== 32)) {
    problems.push({ path: 'fleetSecretFile', message: 'the file must hold base64url of 32 random bytes; crossfade init makes one' });
  }
  return new Secret(text);
}

export function readAdminToken(text: string, problems: ConfigProblem[]): Secret {
  if (text.trim() !== '' && text.trim().length < 20) {
    problems.push({ path: 'admin.tokenFile', message: 'the file must hold at least 20 random characters; crossfade init makes one' });
  }
  return new Secret(text.trim());
}

export function readSessionSecrets(text: string, index: number, problems: ConfigProblem[]): Secret[] {
  const lines = text.split(/\r?\n/).filter((line) => line !== '');
  if (lines.some((line) => line !== line.trim())) {
    problems.push({ path: `sessions[${index}].secretsFile`, message: 'a secret in the file starts or ends with white space' });
  }
  return lines.map((line) => new Secret(line));
}

export function readSecretHash(text: string, index: number, problems: ConfigProblem[]): Secret {
  if (text.trim() !== '' && !/^[0-9a-f]{64}$/i.test(text.trim())) {
    problems.push({
      path: `clients[${index}].secretHashFile`,
      message: 'the file must hold the hex SHA-256 of the secret; crossfade init --client ID makes one',
    });
  }
  return new Secret(text.trim().toLowerCase());
}
