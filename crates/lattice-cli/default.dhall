-- Settings of Lattice. Put this file, or just the fields you change, into `lattice.dhall`
-- (in the base folder, or name it with --config). Everything here is the default.
{ -- The folder that holds models/, input/, output/, temp/ and user/.
  baseDir = "."
  -- Where results, uploads, previews and user data go, if not below baseDir.
, outputDir = None Text
, inputDir = None Text
, tempDir = None Text
, userDir = None Text
  -- Model folder lists in the extra_model_paths.yaml format.
, extraModelPaths = [] : List Text
  -- Threads for computing; None: one per core.
, threads = None Natural
  -- Which results are kept between prompts: those of the last prompt, those of the last N prompts, none,
  -- or as many as fit until the process uses that many MiB.
, cache =
    < Classic | Lru : Natural | Off | RamPressure : Natural >.Classic
  -- Pictures while sampling.
, preview = < Off | Auto | Latent2rgb | Taesd >.Off
  -- Whether saved files carry the prompt and the workflow.
, metadata = True
  -- What `lattice run` and `lattice serve` log: error, warn, info, debug or trace.
, log = "warn"
}
