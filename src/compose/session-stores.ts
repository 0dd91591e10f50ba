import { createSessionStore, type SessionStore, type TokenSessionNames } from '../adapters/session-store.js';
import type { Config } from '../config/config.js';
import type { Connections } from '../redis/connections.js';
import type { Tools } from '../telemetry/tools.js';
import type { Lifecycle } from './lifecycle.js';

export interface SessionStoresOptions extends Tools {
  readonly config: Pick<Config, 'sessions'>;
  readonly connections: Connections;
  readonly lifecycle: Lifecycle;
  readonly names: TokenSessionNames;
}

/** The store of an entry of koa-session; without a name of the first. @throws {TypeError} where there is none. */
export function createSessionStores({ config, connections, lifecycle, names, ...tools }: SessionStoresOptions): (name?: string) => SessionStore {
  return function sessionStore(name) {
    const session = config.sessions.find((known) => known.format === 'koa-session' && (name === undefined || known.name === name));
    const entry = lifecycle.entries.find((known) => known.name === session?.name);
    if (!session || !entry)
      throw new TypeError(
        name === undefined ? 'no sessions of koa-session are configured' : `sessions: there is no entry of koa-session named ${name}`,
      );
    const { sessions, ledger, logout, resume } = lifecycle;
    const { client } = connections.connectionFor(session);
    return createSessionStore({ ...tools, entry, client, keyPrefix: session.keyPrefix, sessions, ledger, logout, resume, names });
  };
}
