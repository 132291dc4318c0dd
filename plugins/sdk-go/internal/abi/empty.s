// With this file functions without a body are allowed, as the imports are.
