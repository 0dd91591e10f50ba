import type { Config, ConfigProblem as Finding } from '../config/config.js';
import { keyOf, reusesIds } from '../formats/formats.js';
import { readJsonRecord } from '../formats/json-record.js';
import { askWhoami } from '../formats/whoami.js';
import { createPathMapping, pathsBeside } from '../sessions/mapping.js';

/** What would keep sessions from being read: cookies that do not arrive, keys that are the bridge's own, an app that does not answer. */
export async function checkSessions(config: Config): Promise<Finding[]> {
  return [...checkCookies(config), ...checkKeysAndPaths(config), ...(await checkWhoami(config))];
}

/** What is as it is: nothing to mend, but to know. */
export function noteSessions(config: Config): Finding[] {
  return [...noteClusters(config), ...noteReusedIds(config), ...noteNoLoginTime(config)];
}

/** Whether the browser sends the app's cookie to the bridge. */
function checkCookies(config: Config): Finding[] {
  const host = new URL(config.issuer).hostname;
  return config.sessions.flatMap((session, index) => {
    const { domain, secure, sameSite } = session.cookieOptions;
    const at = `sessions[${index}].cookieOptions`;
    const covers = (name: string) => (domain === undefined ? name === host : name === bare(domain) || name.endsWith(`.${bare(domain)}`));
    const found: Finding[] = [];
    if (!covers(host)) found.push({ path: `${at}.domain`, message: `a cookie for ${domain} does not reach the issuer's host ${host}` });
    const isHttps = config.issuer.startsWith('https:');
    if (secure && !isHttps)
      found.push({ path: `${at}.secure`, message: 'browsers keep no secure cookie of an http issuer: a session that comes back would be lost' });
    if (!secure && isHttps)
      found.push({
        path: `${at}.secure`,
        message: 'the issuer is https: a session that comes back would get a cookie that is sent over http as well',
      });
    if (sameSite === 'none' && !secure) found.push({ path: at, message: 'browsers refuse sameSite: none without secure: true' });
    for (const client of config.clients.filter(({ exchanges, refreshTransport }) => exchanges && refreshTransport === 'cookie')) {
      for (const origin of client.origins.filter((known) => /^https?:/.test(known) && !covers(new URL(known).hostname))) {
        found.push({
          path: `clients.${client.id}.origins`,
          message: `${origin} is another host than ${host}: the cookie ${session.cookie} may not be sent from there`,
        });
      }
    }
    return found;
  });
}

function bare(domain: string): string {
  return domain.replace(/^\./, '').toLowerCase();
}

function checkKeysAndPaths({ http, sessions, redis }: Config): Finding[] {
  const found: Finding[] = [];
  sessions.forEach(({ keyPrefix, json, cookieOptions }, index) => {
    const { before: prefix } = keyOf({ json, keyPrefix });
    if (prefix !== '' && prefix.startsWith(redis.keyPrefix)) {
      found.push({
        path: `sessions[${index}].${json ? 'json.key' : 'keyPrefix'}`,
        message: `starts with redis.keyPrefix (${redis.keyPrefix}): no session would be read, since those keys are the bridge's own`,
      });
    }
    if (cookieOptions.path !== '/' && !http.basePath.startsWith(cookieOptions.path)) {
      found.push({ path: `sessions[${index}].cookieOptions.path`, message: `a cookie for ${cookieOptions.path} is not sent to ${http.basePath}` });
    }
  });
  return found;
}

/** A question without a cookie must find nobody: else the app names somebody to whoever asks. */
async function checkWhoami({ sessions }: Config): Promise<Finding[]> {
  const found = sessions.map(async ({ http, principal }, index): Promise<Finding[]> => {
    if (!http) return [];
    const path = `sessions[${index}].http.url`;
    try {
      const text = await askWhoami(http);
      const record = text === undefined ? undefined : readJsonRecord(text);
      if (!record || !principal) return [];
      const anybody = await createPathMapping(principal)(record);
      if (!('rejected' in anybody && anybody.rejected === 'nobody-logged-in'))
        return [{ path, message: 'names somebody for a request without a cookie' }];
      // An app that names its members also where nobody is logged in shows whether the one that is mapped is among them.
      const there = pathsBeside(record, principal.subject);
      return there === undefined || there.length === 0
        ? []
        : [{ path: `sessions[${index}].principal.subject`, message: `the app answers without ${principal.subject}; there is ${there.join(', ')}` }];
    } catch (error) {
      return [{ path, message: error instanceof Error ? error.message : 'cannot be asked' }];
    }
  });
  return (await Promise.all(found)).flat();
}

/** Without the time of a login, nothing tells the next one under the same id from a late write. */
function noteReusedIds({ sessions }: Config): Finding[] {
  return sessions.flatMap(({ format, principal }, index) =>
    reusesIds(format) && principal && principal.authTime === undefined
      ? [
          {
            path: `sessions[${index}].principal.authTime`,
            message: `${format} may give the same id to the next login: without the time of the login it is refused within tokens.resurrectionSeconds after a logout`,
          },
        ]
      : [],
  );
}

/** What `crossfade end` cannot do then. */
function noteNoLoginTime({ sessions }: Config): Finding[] {
  return sessions.flatMap(({ principal, http }, index) =>
    principal && principal.authTime === undefined
      ? [
          {
            path: `sessions[${index}].principal.authTime`,
            message: `is not mapped: \`crossfade end\` cannot end ${http ? 'sessions here that tokens were never made from: the app must' : 'sessions that tokens were never made from, unless it looks through all records (--sweep)'}`,
          },
        ]
      : [],
  );
}

function noteClusters({ redis, sessions }: Config): Finding[] {
  return sessions.flatMap((session, index) =>
    (session.redis ?? redis).cluster
      ? [
          {
            path: session.redis ? `sessions[${index}].redis` : 'redis',
            message: 'the records are on a Redis Cluster: a logout that the legacy app does alone is noticed at the next refresh, not at once',
          },
        ]
      : [],
  );
}
