import { readFileSync } from 'node:fs';
import type { Config, SessionConfig } from '../config/config.js';
import { loadConfig } from '../config/load.js';
import type { Secret } from '../config/secret.js';
import { errnoOf } from '../errors.js';
import { createCookieScheme, signAsKeygrip } from '../formats/cookie-scheme.js';
import { type CookiePairs, parseCookies } from '../formats/cookies.js';
import type { SessionRecord } from '../formats/format.js';
import { readJsonRecord } from '../formats/json-record.js';
import { askWhoami, type WhoamiConfig } from '../formats/whoami.js';
import { createPathMapping, pathsBeside } from '../sessions/mapping.js';
import { print } from './print.js';

export interface CheckCookieOptions {
  readonly config: string;
  readonly cookieValueFile: string;
  readonly json?: boolean;
}

/** What one entry makes of the cookie. Names of settings and numbers of lines only. */
interface CookieReport {
  readonly entry: string;
  readonly outcome:
    | 'verified'
    | 'not-signed'
    | 'no-cookie'
    | 'no-signature'
    | 'bad-signature'
    | 'taken-out'
    | 'named'
    | 'nobody'
    | 'unmapped'
    | 'no-answer';
  /** Which line of the file has signed it, counted from 1 without those that are empty. */
  readonly line?: number;
  /** The setting that would fit. */
  readonly fits?: string;
  /** Of `format: http`: what is wrong with the app's answer. */
  readonly why?: string;
}

/** Hashes that apps are seen to use. */
const ALGORITHMS = ['sha1', 'sha256', 'sha512', 'sha384', 'sha224', 'md5', 'sha3-256', 'sha512-256', 'ripemd160'];
const ENCODINGS = ['base64', 'hex'] as const;

/** `crossfade check --cookie-value-file FILE`: whether a real cookie verifies, and which setting fits where it does not. 0: it does. */
export async function checkCookie({ config: path, cookieValueFile, json = false }: CheckCookieOptions): Promise<number> {
  const config = await loadConfig(path);
  const pairs = readPairs(cookieValueFile);
  const reports: CookieReport[] = [];
  for (const session of config.sessions) reports.push(session.http ? await askApp(session, session.http, pairs) : judge(session, pairs));
  if (json) print.json({ reports });
  else for (const report of reports) print.line(describe(report, config));
  return reports.some(({ outcome }) => outcome === 'verified' || outcome === 'not-signed' || outcome === 'named') ? 0 : 1;
}

/** Asks the app as the bridge would, and reads its answer as the bridge would. */
async function askApp({ name: entry, cookie, principal }: SessionConfig, http: WhoamiConfig, pairs: CookiePairs): Promise<CookieReport> {
  const [, value] = pairs.find(([name]) => name === cookie) ?? [];
  if (value === undefined) return { entry, outcome: 'no-cookie' };
  let record: SessionRecord | undefined;
  try {
    const text = await askWhoami(http, `${cookie}=${value}`);
    record = text === undefined ? undefined : readJsonRecord(text);
  } catch (error) {
    return { entry, outcome: 'no-answer', why: `at ${http.url} ${error instanceof Error ? error.message : 'cannot be asked'}` };
  }
  if (!record) return { entry, outcome: 'nobody' };
  const found = principal ? await createPathMapping(principal)(record) : undefined;
  if (!found || !principal || 'identity' in found) return { entry, outcome: 'named' };
  const there = pathsBeside(record, principal.subject) ?? [];
  return { entry, outcome: 'unmapped', why: `${found.why}${there.length > 0 ? `; there is ${there.join(', ')}` : ''}` };
}

/** A `Cookie` header, with or without its name, as a browser's tools copy it. */
function readPairs(file: string): CookiePairs {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new Error(`${file} cannot be read (${errnoOf(error)})`);
  }
  const pairs = parseCookies(
    text
      .replace(/^\ufeff/, '')
      .trim()
      .replace(/^cookie:\s*/i, ''),
  );
  if (pairs.length === 0)
    throw new Error(`${file} holds no cookie: put there what stands behind "Cookie:" in a request, such as koa.sess=…; koa.sess.sig=…`);
  return pairs;
}

function judge(session: SessionConfig, pairs: CookiePairs): CookieReport {
  const { name: entry } = session;
  const lines = (session.secrets?.current ?? []).map((secret, at) => ({ name: String(at + 1), secret }));
  const mark = lines.findIndex(({ secret }) => secret.reveal() === '-');
  const [numbered, takenOut] = mark < 0 ? [lines, []] : [lines.slice(0, mark), lines.slice(mark + 1)];
  const secrets = numbered.map(({ secret }) => secret);
  const scheme = createCookieScheme(session, { verifying: numbered, signing: numbered[0] });
  const presented = scheme.read(pairs);
  if (presented.length === 0) return { entry, outcome: 'no-cookie' };
  if (session.signedBy === 'none') return { entry, outcome: 'not-signed' };
  const [, signatureName] = scheme.cookieNames;
  if (signatureName !== undefined && !pairs.some(([name]) => name === signatureName)) return { entry, outcome: 'no-signature' };
  const signer = presented.map((one) => one.signer()).find((found) => found !== undefined);
  if (signer !== undefined) return { entry, outcome: 'verified', line: Number(signer) };
  const before = createCookieScheme(session, { verifying: takenOut, signing: undefined })
    .read(pairs)
    .map((one) => one.signer());
  const line = before.find((found) => found !== undefined);
  if (line !== undefined) return { entry, outcome: 'taken-out', line: Number(line) };
  const fits = session.signedBy === 'keygrip' ? fitKeygrip(session.cookie, secrets, pairs) : fitSuffix(session, numbered, pairs);
  return { entry, outcome: 'bad-signature', ...(fits === undefined ? {} : { fits }) };
}

function fitKeygrip(cookie: string, secrets: readonly Secret[], pairs: CookiePairs): string | undefined {
  const valuesOf = (wanted: string) => pairs.flatMap(([name, value]) => (name === wanted ? [value] : []));
  const signatures = valuesOf(`${cookie}.sig`);
  for (const algorithm of ALGORITHMS) {
    for (const encoding of ENCODINGS) {
      for (const secret of secrets) {
        const signature = { algorithm, encoding };
        const isSigned = valuesOf(cookie).some((id) => signatures.some((given) => isSignedBy(given, `${cookie}=${id}`, secret, signature)));
        if (isSigned) return `signature: { algorithm: ${algorithm}, encoding: ${encoding} }`;
      }
    }
  }
  return undefined;
}

/** A hash that this Node.js was built without fits nothing. */
function isSignedBy(signature: string, ...args: Parameters<typeof signAsKeygrip>): boolean {
  try {
    return signature === signAsKeygrip(...args);
  } catch {
    return false;
  }
}

/** Other libraries that sign cookies, for entries of the home-made format. */
function fitSuffix(session: SessionConfig, verifying: Parameters<typeof createCookieScheme>[1]['verifying'], pairs: CookiePairs): string | undefined {
  const fitting = (['express', 'cookie-signature'] as const).find((signedBy) =>
    createCookieScheme({ ...session, signedBy }, { verifying, signing: undefined })
      .read(pairs)
      .some((one) => one.signer() !== undefined),
  );
  return fitting && `json.signature: ${fitting}`;
}

function describe({ entry, outcome, line, fits, why }: CookieReport, { sessions }: Config): string {
  const cookie = sessions.find(({ name }) => name === entry)?.cookie ?? '';
  switch (outcome) {
    case 'verified':
      return `${entry}: the cookie ${cookie} verifies, with line ${line} of secretsFile.`;
    case 'taken-out':
      return `${entry}: the cookie ${cookie} is signed with line ${line} of secretsFile, which the line - has taken out: the bridge rejects it.`;
    case 'not-signed':
      return `${entry}: the cookie ${cookie} is there, and this entry expects no signature.`;
    case 'named':
      return `${entry}: the app says whose cookie ${cookie} is, and the answer maps to a principal.`;
    case 'nobody':
      return `${entry}: the app says that the cookie ${cookie} is nobody's.`;
    case 'unmapped':
      return `${entry}: the app answers, and its answer maps to nobody: ${why}.`;
    case 'no-answer':
      return `${entry}: the app that is asked about the cookie ${cookie} ${why}.`;
    case 'no-cookie':
      return `${entry}: no cookie ${cookie} is in the file.`;
    case 'no-signature':
      return `${entry}: the cookie ${cookie} is in the file, and ${cookie}.sig, which signs it, is not: copy both.`;
    case 'bad-signature':
      return fits === undefined
        ? `${entry}: no secret of secretsFile has signed the cookie ${cookie}, with any hash: is it the secret of the app (app.keys in Koa, secret in Express)?`
        : `${entry}: the cookie ${cookie} does not verify. It would with ${fits} in this entry.`;
  }
}
