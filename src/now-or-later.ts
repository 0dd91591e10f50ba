/** Goes on with a value: at once where it is there, later where it is promised. The request's path waits only where somebody has to be asked. */
export function after<T, U>(value: T | Promise<T>, next: (value: T) => U | Promise<U>): U | Promise<U> {
  return value instanceof Promise ? value.then(next) : next(value);
}
