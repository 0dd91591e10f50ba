export { type Bridge, type BridgeOptions, createBridge } from './bridge.js';
export { type Config, ConfigError, type ConfigInput, type ConfigProblem } from './config/config.js';
export { loadConfig } from './config/load.js';
export { CrossfadeError, type ErrorCode } from './errors.js';
export type { RequireOptions } from './http/require.js';
export type { CrossfadeState, Rejection } from './http/state.js';
export type { Principal } from './principal.js';
export type { SessionRecord } from './sessions/format.js';
export type { MappedIdentity, MappingFunction } from './sessions/mapping.js';
