import type { Config, ConfigProblem, Parsed } from './config.js';

/** What one field's own rule cannot see. */
export function crossChecks(config: Parsed): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const add = (path: string, message: string) => problems.push({ path, message });

  config.sessions.forEach((session, index) => {
    const at = `sessions[${index}]`;
    if (session.format !== 'koa-session') add(`${at}.format`, `${session.format} is not in this version of Crossfade; only koa-session is`);
    if (session.signed && !session.secretsFile) add(`${at}.secretsFile`, "a signed cookie needs the app's cookie secrets; or say signed: false");
  });
  config.services.forEach((service, index) => {
    if (service.upstream === 'jwt') add(`services[${index}].upstream`, 'jwt is not in this version of Crossfade; only headers is');
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
  duplicates(config.sessions.map(({ cookie, keyPrefix, redis }) => JSON.stringify([cookie, keyPrefix, redis]))).forEach(() =>
    add('sessions', 'two entries read the same cookie from the same place'),
  );
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

function duplicates(names: readonly string[]): string[] {
  return [...new Set(names.filter((name, index) => names.indexOf(name) !== index))];
}

/** The entries that say nothing of who is logged in: a problem, unless a function says it. */
export function unmappedSessions({ sessions }: Pick<Config, 'sessions'>): ConfigProblem[] {
  return sessions.flatMap(({ principal }, index) =>
    principal ? [] : [{ path: `sessions[${index}].principal`, message: 'say where in the record the subject is, for example { subject: user.id }' }],
  );
}
