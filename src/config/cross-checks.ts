import type { Config, ConfigProblem, Parsed } from './config.js';
import { checkConnection } from './redis-access.js';
import { signingOf, withFormatDefaults } from './session-formats.js';

/** What one field's own rule cannot see. */
export function crossChecks(config: Parsed): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const add = (path: string, message: string) => problems.push({ path, message });

  problems.push(...checkConnection(config.redis, 'redis'));
  config.sessions.forEach((session, index) => {
    problems.push(...checkSession(session, `sessions[${index}]`));
    if (session.redis) problems.push(...checkConnection(session.redis, `sessions[${index}].redis`));
  });
  config.clients.forEach((client, index) => {
    for (const permission of ['introspect', 'issue'] as const) {
      if (client[permission] && client.type !== 'confidential') add(`clients[${index}].${permission}`, 'is for confidential clients only');
    }
  });
  const clientIds = new Set(config.clients.map(({ id }) => id));
  config.rollout.cohorts.forEach((cohort, index) => {
    if (!clientIds.has(cohort.client)) add(`rollout.cohorts[${index}].client`, `no client has the id ${cohort.client}`);
    // Whoever is of a client and in no cohort is in the one that is named like the client.
    if (clientIds.has(cohort.name) || cohort.name === 'unknown')
      add(`rollout.cohorts[${index}].name`, `${cohort.name} is the id of a client: choose another name`);
  });
  duplicates(config.sessions.map(({ name }) => name)).forEach((name) => add('sessions', `two entries are named ${name}`));
  duplicates(
    config.sessions.map(withFormatDefaults).map(({ cookie, keyPrefix, json, http, redis }) => JSON.stringify([cookie, keyPrefix, json, http, redis])),
  ).forEach(() => add('sessions', 'two entries read the same cookie from the same place'));
  duplicates(config.clients.map(({ id }) => id)).forEach((id) => add('clients', `two clients have the id ${id}`));
  duplicates(config.services.map(({ id }) => id)).forEach((id) => add('services', `two services have the id ${id}`));
  const { publishSeconds, selfTestSeconds } = config.keys;
  if (publishSeconds > 0 && publishSeconds < 2 * selfTestSeconds) {
    add(
      'keys.publishSeconds',
      `must be 0, for a single instance, or at least twice keys.selfTestSeconds (${2 * selfTestSeconds}): the others must have read the key before it signs`,
    );
  }
  if (config.http.basePath.startsWith('/.well-known')) add('http.basePath', 'must not be under /.well-known');
  if (config.listen.port !== 0 && config.listen.port === config.admin.port && config.listen.host === config.admin.host) {
    add('admin.port', 'is the same as listen.port; operators need a port of their own');
  }
  return problems;
}

type ParsedSession = Parsed['sessions'][number];

/** What only one format has. */
const SETTINGS_OF: Readonly<Record<'serializeHandler' | 'json' | 'http', ParsedSession['format']>> = {
  serializeHandler: 'php',
  json: 'json',
  http: 'http',
};

/** Whether an entry says what its format needs, and nothing that its format has not. */
function checkSession(session: ParsedSession, at: string): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const add = (name: string, message: string) => problems.push({ path: `${at}.${name}`, message });
  const { format, json, http } = session;
  const { cookie, keyPrefix, signedBy } = withFormatDefaults(session);

  if (cookie === '') add('cookie', `say its name: there is no usual one for ${format}`);
  for (const setting of ['serializeHandler', 'json', 'http'] as const) {
    if (session[setting] !== undefined && format !== SETTINGS_OF[setting]) add(setting, `is for format ${SETTINGS_OF[setting]} only`);
  }
  if (format === 'json' && !json) add('json', 'say where the records are, for example { key: "app:{id}:session" }');
  if (format === 'http' && !http) add('http', 'say whom to ask, for example { url: http://127.0.0.1:8000/whoami }');
  const signing = signingOf(format);
  if (signing === 'never' && session.signed) add('signed', `is not for ${format}: nothing signs its cookie that could be checked here`);
  if (signing === 'always' && session.signed === false) add('signed', `${format} always signs its cookie`);
  if (session.signature && signedBy !== 'keygrip')
    add(
      'signature',
      `is for cookies that keygrip signs (Koa); those of ${format} ${signedBy === 'none' ? 'are not signed here' : 'have one kind of signature'}`,
    );
  if (json?.signature && session.signed === false) add('json.signature', 'and signed: false contradict each other');
  if (signedBy !== 'none' && !session.secretsFile) add('secretsFile', "a signed cookie needs the app's cookie secrets; or say signed: false");
  if (json && signedBy === 'none' && (json.key.split('{id}')[0] ?? '').replaceAll('{', '').length < 2)
    add('json.key', 'must start with at least two characters of its own before {id}: an unsigned cookie could name any key');
  if (keyPrefix === '' && signedBy === 'none' && (format === 'php' || format === 'koa-generic-session'))
    add('keyPrefix', 'must not be empty: an unsigned cookie could name any key');
  if (signing === 'never' && session.secretsFile) add('secretsFile', `is not for ${format}: nothing signs its cookie that could be checked here`);
  if (http && session.idPattern !== undefined) add('idPattern', 'is not for http: the app itself knows its cookies');
  if (session.keyPrefix !== undefined && (json ?? http)) add('keyPrefix', `is not for ${format}${json ? ': json.key says it' : ''}`);
  if (http && session.redis) add('redis', 'is not for http: the app itself is asked');
  return problems;
}

function duplicates(names: readonly string[]): string[] {
  return [...new Set(names.filter((name, index) => names.indexOf(name) !== index))];
}

/** The entries that say nothing of who is logged in: a problem, unless a function says it. */
export function unmappedSessions({ sessions }: Pick<Config, 'sessions'>): ConfigProblem[] {
  return sessions.flatMap(({ principal }, index) =>
    principal ? [] : [{ path: `sessions[${index}].principal`, message: 'say where in the record the subject is, for example { subject: user.id }' }],
  );
}
