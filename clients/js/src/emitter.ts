/** Listeners of events. Does not know the events. */

/** Listeners by event. A listener that throws harms no other. */
export class Emitter<Events> {
  private _listeners = new Map<keyof Events, Set<[(value: never) => void]>>();

  /** Adds a listener. Returns the function that removes it. */
  on<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => void): () => void {
    const set = this._listeners.get(event) || new Set();
    const entry: [(value: Events[Name]) => void] = [listener];
    this._listeners.set(event, set.add(entry));
    return () => void set.delete(entry);
  }

  /** Calls the listeners. @internal */
  _emit<Name extends keyof Events>(event: Name, value: Events[Name]): void {
    for (const [listener] of [...(this._listeners.get(event) || [])]) {
      try {
        listener(value as never);
      } catch (error) {
        console.error(error);
      }
    }
  }
}
