// Builds dist/: ESM, CommonJS, one script for pages, and the types. Prints the sizes and fails above the bars.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** Most bytes after gzip. `core` is the client with the transport of the platform. */
const BARS = { core: 5120, vue: 1024, task: 614, localPositions: 614, 'skylark.global.js': 6144 };

process.chdir(import.meta.dirname ?? new URL('.', import.meta.url).pathname);
rmSync('dist', { recursive: true, force: true });

// Members that begin with `_` are private: they get short names.
const common = { bundle: true, minify: true, target: 'es2020', mangleProps: /^_/, logLevel: 'warning' };
const entryPoints = ['src/index.ts', 'src/vue.ts'];
const external = ['vue', './index.js'];
await build({ ...common, entryPoints, external, format: 'esm', outdir: 'dist/esm' });
await build({ ...common, entryPoints, external, format: 'cjs', outdir: 'dist/cjs' });
const page = { entryPoints: ['src/index.ts'], format: 'iife', globalName: 'skylark' };
await build({ ...common, ...page, outfile: 'dist/skylark.global.js' });

execFileSync(process.execPath, ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' });
mkdirSync('dist/cjs', { recursive: true });
cpSync('dist/esm', 'dist/cjs', { recursive: true, filter: (path) => !path.endsWith('.js') });
writeFileSync('dist/cjs/package.json', '{ "type": "commonjs" }\n');

/** The minified size after gzip of an entry that has only these parts; what a page pays for them. */
async function size(contents) {
  const stdin = { contents, resolveDir: 'src', loader: 'ts' };
  const { outputFiles } = await build({ ...common, stdin, format: 'esm', external: ['vue'], write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const core = await size("export { Skylark } from './index.js'");
const sizes = { core, 'skylark.global.js': gzipSync(readFileSync('dist/skylark.global.js'), { level: 9 }).length };
sizes.vue = gzipSync(readFileSync('dist/esm/vue.js'), { level: 9 }).length;
for (const name of ['task', 'localPositions']) {
  sizes[name] = (await size(`export { Skylark, ${name} } from './index.js'`)) - core;
}
for (const [name, bytes] of Object.entries(sizes)) {
  const isOver = bytes > BARS[name];
  console.log(`${name}: ${bytes} bytes after gzip, ${isOver ? 'MORE THAN' : 'at most'} ${BARS[name]}`);
  if (isOver) process.exitCode = 1;
}
