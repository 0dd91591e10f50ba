import type { Config } from '../config/config.js';
import { unavailable } from '../errors.js';
import { isScopeToken } from '../principal.js';
import { createRecent } from '../recent.js';
import { originalUris } from './peer.js';
import type { RequestHead } from './reply.js';

/** What the proxy asks about: each route may want something else. */
export interface VerifySettings {
  /** All of these are needed. */
  readonly scope: readonly string[];
  readonly anonymous: Config['verify']['anonymous'];
  /** Whose tokens are accepted beside those for the bridge, and who may get one of its own. */
  readonly service?: Config['services'][number];
}

/** @throws {CrossfadeError} `temporarily_unavailable` for settings that cannot be what the operator meant: neither 200 nor 401 would be true. */
export type ReadVerifySettings = (request: RequestHead, url: string) => VerifySettings;

interface SettingsOptions {
  /** Where forward-auth is: `/auth/verify`. */
  readonly path: string;
  readonly anonymous: Config['verify']['anonymous'];
  readonly services: Config['services'];
}

/** Proxies send the same few over and over. */
const MAX_KNOWN = 500;

/** `.` or `..` between slashes, in any spelling that somebody may take for one. */
const DOT_SEGMENT = /(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\;]|%2f|%5c|$)/i;

function spelledAlike(query: string): string {
  return new URLSearchParams(query.split('#', 1)[0]).toString();
}

/** What is wrong with settings, for the operator. */
class UnusableSettings extends Error {
  override readonly name = 'UnusableSettings';
}

/**
 * `scope`, `anonymous` and `service`, out of the URL that the operator gave the proxy: the query of exactly `/auth/verify`, or, for a
 * proxy that appends the client's own path and query (Envoy), parameters of that segment: `/auth/verify;scope=read:orders/…` (RFC 3986,
 * section 3.3). The client's own query never counts: with it anybody could ask to be let in.
 */
export function createReadVerifySettings({ path, anonymous, services }: SettingsOptions): ReadVerifySettings {
  const known = createRecent<string, VerifySettings>({ max: MAX_KNOWN });

  function read(parameters: URLSearchParams): VerifySettings {
    const given = new Map(parameters);
    if (given.size !== parameters.size) throw new UnusableSettings('a setting stands twice');
    // Judged as a credential: it is none that is taken.
    given.delete('access_token');
    const unknown = [...given.keys()].find((name) => !['scope', 'anonymous', 'service'].includes(name));
    if (unknown !== undefined) throw new UnusableSettings('there is a parameter that is no setting: does the client’s own query get here?');
    const policy = given.get('anonymous') ?? anonymous;
    if (policy !== 'allow' && policy !== 'deny') throw new UnusableSettings('anonymous must be allow or deny');
    const service = services.find(({ id }) => id === given.get('service'));
    if (!service && given.has('service')) throw new UnusableSettings('no such service is configured');
    const scope = (given.get('scope') ?? '').split(' ').filter((token) => token !== '');
    if (!scope.every(isScopeToken)) throw new UnusableSettings('scope is none (RFC 6749, section 3.3)');
    return { scope, anonymous: policy, ...(service ? { service } : {}) };
  }

  function textOf(request: RequestHead, url: string): string {
    const at = url.indexOf('?');
    const [own, query] = at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)];
    const [segment = ''] = own.slice(path.length).split('/', 1);
    if (segment.startsWith(';')) {
      // A proxy that matched another path, and passes this one on as the client wrote it: then the parameters are the client's.
      if (DOT_SEGMENT.test(own)) throw new UnusableSettings('the path has dot segments: the proxy must normalise it');
      return segment.slice(1).replaceAll(';', '&');
    }
    if (own !== path || query === '') return '';
    // Whoever asks with exactly the operator's own settings as a query is refused as well: the two cannot be told apart.
    if (originalUris(request).some((uri) => spelledAlike(uri.slice(uri.indexOf('?') + 1)) === spelledAlike(query)))
      throw new UnusableSettings('the query is the client’s own: give the proxy a fixed one');
    return query;
  }

  return function readVerifySettings(request, url) {
    try {
      const text = textOf(request, url);
      const remembered = known.get(text);
      if (remembered) return remembered;
      const settings = read(new URLSearchParams(text));
      known.set(text, settings);
      return settings;
    } catch (cause) {
      throw unavailable('settings', cause);
    }
  };
}
