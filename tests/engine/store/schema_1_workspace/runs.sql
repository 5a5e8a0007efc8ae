BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'finetop','m001_first','2026-11-27 07:22:47.683284+00:00');
CREATE TABLE checkpoints(run_id INTEGER, step INTEGER, epoch REAL, path TEXT, bytes INTEGER, kept TEXT, eval TEXT, parent_run INTEGER, parent_step INTEGER, time REAL, pinned INTEGER NOT NULL DEFAULT 0, removed REAL, detail TEXT, PRIMARY KEY(run_id, step)) WITHOUT ROWID;
INSERT INTO "checkpoints" VALUES(1,0,0.0,'checkpoints/step-00000000',1650106,'[]','{}',NULL,NULL,1.7957641831440105438e+09,0,NULL,'{}');
INSERT INTO "checkpoints" VALUES(1,2,0.5,'checkpoints/step-00000002',4062936,'[]','{}',1,0,1.7957641838598649501e+09,0,NULL,'{}');
INSERT INTO "checkpoints" VALUES(1,4,1.0,'checkpoints/step-00000004',4062936,'["latest","epoch-1","best"]','{}',1,2,1.79576418456828665738e+09,0,NULL,'{}');
CREATE TABLE dependencies(run_id INTEGER, after_id INTEGER, PRIMARY KEY(run_id, after_id)) WITHOUT ROWID;
CREATE TABLE "evaluations" (
   "id" INTEGER PRIMARY KEY,
   "run_id" INTEGER,
   "step" INTEGER,
   "time" REAL,
   "scores" TEXT,
   "detail" TEXT
);
INSERT INTO "evaluations" VALUES(1,1,0,1.79576418294901680953e+09,'{"eval/loss":5.394953503075874,"eval/perplexity":220.29190396241577,"eval/exact_match":0.0}','{"folder":"evaluations/step-00000000"}');
INSERT INTO "evaluations" VALUES(2,1,2,1.79576418364439892774e+09,'{"eval/loss":5.36459425859379,"eval/perplexity":213.7045083201729,"eval/exact_match":0.0}','{"folder":"evaluations/step-00000002"}');
INSERT INTO "evaluations" VALUES(3,1,4,1.79576418439584469793e+09,'{"eval/loss":5.354226765533288,"eval/perplexity":211.50037373076125,"eval/exact_match":0.0}','{"folder":"evaluations/step-00000004"}');
CREATE TABLE "events" (
   "id" INTEGER PRIMARY KEY,
   "run_id" INTEGER,
   "time" REAL,
   "source" TEXT,
   "kind" TEXT,
   "step" INTEGER,
   "message" TEXT,
   "detail" TEXT
);
INSERT INTO "events" VALUES(1,1,1.79576416932017159456e+09,'queue','start',NULL,'Started, spawned (pid 28835).','{"pid":28835,"boot":"c4024dfe-6d42-40b6-a8ef-deb24f722f06"}');
INSERT INTO "events" VALUES(2,1,1.79576418176972460744e+09,'journal','state',NULL,'starting','{"pid":28835,"versions":{"finetop":"0.1.0","python":"3.11.7","torch":"2.13.0+cpu","transformers":"5.23.0","peft":"0.21.2"},"log_bytes":0}');
INSERT INTO "events" VALUES(3,1,1.79576418183056235318e+09,'journal','data',NULL,'','{"files":[{"path":"/home/work/data/qa.jsonl","encoding":"utf-8","format":"openai","container":"jsonl","columns":{"messages":"messages"},"sha256":"84c95edf8dded4ce04fe10ca6573414fba9d787e600463d1c5d8426153f9fd15","rows":9,"bad_rows":0}],"problems":[],"problem_counts":{},"labels":0,"val_from":"0.1 of the rows","train":{"examples":8,"tokens":409,"supervised":250,"longest":61,"overlong":0,"cut_tokens":0,"cut_supervised":0,"skipped":0,"histogram":{"64":8}},"val":{"examples":1,"tokens":55,"supervised":33,"longest":55,"overlong":0,"cut_tokens":0,"cut_supervised":0,"skipped":0,"histogram":{"64":1}}}');
INSERT INTO "events" VALUES(4,1,1.79576418183068227765e+09,'journal','plan',NULL,'','{"examples":8,"batch_size":2,"steps_per_epoch":4,"total_steps":4,"epochs":1,"settings":{"model.name":"starter","model.revision":"","model.checkpoint":"","model.dtype":"auto","model.attention":"auto","model.trust_remote_code":false,"data.files":["/home/work/data/qa.jsonl"],"data.val_files":[],"data.val_fraction":0.1,"data.format":"auto","data.map":{},"data.system":"","data.template":"auto","data.train_on":"assistant","data.max_length":2048,"data.overlong":"cut","data.max_bad_share":0.05,"data.seed":0,"method.kind":"lora","method.objective":"sft","lora.r":16,"lora.alpha":32.0,"lora.dropout":0.0,"lora.targets":"all-linear","lora.dora":false,"lora.rslora":false,"optim.name":"adamw","optim.learning_rate":0.0001,"optim.schedule":"cosine","optim.warmup":0.03,"optim.weight_decay":0.0,"optim.betas":[0.9,0.999],"optim.grad_clip":1.0,"train.epochs":1,"train.max_steps":4,"train.batch_size":2,"train.micro_tokens":"auto","train.activation_checkpointing":"auto","train.shuffle":true,"train.seed":0,"train.threads":1,"train.deterministic":false,"train.early_stopping":0,"eval.every":2,"eval.metrics":["exact_match"],"eval.normalisation":"case","eval.classify":"likelihood","eval.schema":"","eval.max_examples":3,"eval.max_new_tokens":8,"eval.keep_predictions":20,"eval.prompts":["Where is my card?"],"save.every":0,"save.keep_last":3,"save.keep_epochs":0,"save.keep_best":true,"run.name":"finished","run.tags":[],"run.gpus":[],"run.gpu_count":"auto","run.share":false,"run.priority":0,"run.retries":0,"run.on_oom":"shrink"},"origin":{"model.name":"default","model.revision":"default","model.checkpoint":"default","model.dtype":"default","model.attention":"default","model.trust_remote_code":"default","data.files":"--data-file","data.val_files":"default","data.val_fraction":"default","data.format":"default","data.map":"default","data.system":"default","data.template":"default","data.train_on":"default","data.max_length":"default","data.overlong":"default","data.max_bad_share":"default","data.seed":"default","method.kind":"default","method.objective":"default","lora.r":"default","lora.alpha":"default","lora.dropout":"default","lora.targets":"default","lora.dora":"default","lora.rslora":"default","optim.name":"default","optim.learning_rate":"preset quick","optim.schedule":"default","optim.warmup":"default","optim.weight_decay":"default","optim.betas":"default","optim.grad_clip":"default","train.epochs":"preset quick","train.max_steps":"--set","train.batch_size":"preset quick","train.micro_tokens":"default","train.activation_checkpointing":"default","train.shuffle":"default","train.seed":"default","train.threads":"--set","train.deterministic":"default","train.early_stopping":"default","eval.every":"--set","eval.metrics":"--set","eval.normalisation":"default","eval.classify":"default","eval.schema":"default","eval.max_examples":"--set","eval.max_new_tokens":"--set","eval.keep_predictions":"default","eval.prompts":"--set","save.every":"default","save.keep_last":"default","save.keep_epochs":"default","save.keep_best":"default","run.name":"--name","run.tags":"default","run.gpus":"default","run.gpu_count":"default","run.share":"default","run.priority":"default","run.retries":"default","run.on_oom":"default"}}');
INSERT INTO "events" VALUES(5,1,1.79576418262100696559e+09,'journal','model',NULL,'','{"class":"Qwen2ForCausalLM","parameters":4773120,"trainable":295936,"device":"cpu","ranks":1,"autocast":"None","weights":["float32"],"path":"packed"}');
INSERT INTO "events" VALUES(6,1,1.79576418262153172491e+09,'journal','resume',0,'starts from the beginning','{"micro_tokens":122,"up":16663.102}');
INSERT INTO "events" VALUES(7,1,1.79576418262156391148e+09,'journal','state',0,'running','{"log_bytes":0}');
INSERT INTO "events" VALUES(8,1,1.79576418339740467074e+09,'journal','memory',NULL,'','{"micro_tokens":122,"activation_checkpointing":false,"peak_bytes":538578944,"predicted_bytes":557374592}');
INSERT INTO "events" VALUES(9,1,1.79576418456890082352e+09,'journal','memory',NULL,'','{"micro_tokens":122,"activation_checkpointing":false,"peak_bytes":539013120,"predicted_bytes":557374592}');
INSERT INTO "events" VALUES(10,1,1.79576418456892728803e+09,'journal','state',4,'done','{"seconds":5.9,"log_bytes":0}');
INSERT INTO "events" VALUES(11,2,1.79576418740003061289e+09,'queue','start',NULL,'Started, spawned (pid 29150).','{"pid":29150,"boot":"c4024dfe-6d42-40b6-a8ef-deb24f722f06"}');
INSERT INTO "events" VALUES(12,2,1.79576420070035624497e+09,'journal','state',NULL,'starting','{"pid":29150,"versions":{"finetop":"0.1.0","python":"3.11.7","torch":"2.13.0+cpu","transformers":"5.23.0","peft":"0.21.2"},"log_bytes":0}');
INSERT INTO "events" VALUES(13,2,1795764200.74575,'journal','state',NULL,'failed','{"reason":"/home/work/data/gone.jsonl does not exist","hint":"Did you mean /home/work/data/qa.jsonl?","cause":"input","seconds":3.7,"log_bytes":0}');
INSERT INTO "events" VALUES(14,2,1.79576420313630390167e+09,'queue','ended',NULL,'input: /home/work/data/gone.jsonl does not exist','{}');
CREATE TABLE "facts" (
   "name" TEXT PRIMARY KEY,
   "value" TEXT
);
INSERT INTO "facts" VALUES('last_run_id','3');
INSERT INTO "facts" VALUES('clock','c4024dfe-6d42-40b6-a8ef-deb24f722f06 1795747519.5195863');
INSERT INTO "facts" VALUES('clock:1','1795747519.5195317 -1');
CREATE TABLE gpu_samples(gpu TEXT, time REAL, run_id INTEGER, utilisation REAL, memory_bytes INTEGER, power_watts REAL, temperature REAL, PRIMARY KEY(gpu, time)) WITHOUT ROWID;
CREATE TABLE "metric_keys" (
   "id" INTEGER PRIMARY KEY,
   "key" TEXT
);
INSERT INTO "metric_keys" VALUES(1,'eval/loss');
INSERT INTO "metric_keys" VALUES(2,'eval/perplexity');
INSERT INTO "metric_keys" VALUES(3,'eval/exact_match');
INSERT INTO "metric_keys" VALUES(4,'time');
INSERT INTO "metric_keys" VALUES(5,'train/loss');
INSERT INTO "metric_keys" VALUES(6,'train/lr');
INSERT INTO "metric_keys" VALUES(7,'train/grad_norm');
INSERT INTO "metric_keys" VALUES(8,'train/tokens');
INSERT INTO "metric_keys" VALUES(9,'train/tokens_per_s');
INSERT INTO "metric_keys" VALUES(10,'train/step_s');
INSERT INTO "metric_keys" VALUES(11,'train/epoch');
INSERT INTO "metric_keys" VALUES(12,'host/cpu');
INSERT INTO "metric_keys" VALUES(13,'host/rss');
CREATE TABLE metric_pyramid(series INTEGER, level INTEGER, bucket INTEGER, low REAL, high REAL, total REAL, count INTEGER, nonfinite INTEGER, PRIMARY KEY(series, level, bucket)) WITHOUT ROWID;
CREATE TABLE "metric_summary" (
   "id" INTEGER PRIMARY KEY,
   "run_id" INTEGER,
   "key_id" INTEGER,
   "count" INTEGER,
   "nonfinite" INTEGER,
   "first_step" INTEGER,
   "first" REAL,
   "last_step" INTEGER,
   "last" REAL,
   "low_step" INTEGER,
   "low" REAL,
   "high_step" INTEGER,
   "high" REAL
);
INSERT INTO "metric_summary" VALUES(1,1,1,3,0,0,5.39495350307587440141e+00,4,5.35422676553328802384e+00,4,5.35422676553328802384e+00,0,5.39495350307587440141e+00);
INSERT INTO "metric_summary" VALUES(2,1,2,3,0,0,2.20291903962415773314e+02,4,2.11500373730761253915e+02,4,2.11500373730761253915e+02,0,2.20291903962415773314e+02);
INSERT INTO "metric_summary" VALUES(3,1,3,3,0,0,0.0,4,0.0,0,0.0,0,0.0);
INSERT INTO "metric_summary" VALUES(4,1,4,5,0,0,1.79576418294901680953e+09,4,1.79576418409093856816e+09,0,1.79576418294901680953e+09,4,1.79576418409093856816e+09);
INSERT INTO "metric_summary" VALUES(5,1,5,4,0,1,5.34529638290405273437e+00,4,4.85056781768798828125e+00,4,4.85056781768798828125e+00,3,5.54866123199462890625e+00);
INSERT INTO "metric_summary" VALUES(6,1,6,4,0,1,0.0001,4,2.50000000000000113624e-05,4,2.50000000000000113624e-05,1,0.0001);
INSERT INTO "metric_summary" VALUES(7,1,7,4,0,1,1.10472238063812255859e+00,4,1.25678145885467529296e+00,1,1.10472238063812255859e+00,2,1.29407036304473876953e+00);
INSERT INTO "metric_summary" VALUES(8,1,8,4,0,1,112.0,4,409.0,1,112.0,4,409.0);
INSERT INTO "metric_summary" VALUES(9,1,9,4,0,1,870.5,4,796.6,4,796.6,3,935.9);
INSERT INTO "metric_summary" VALUES(10,1,10,4,0,1,0.12866,4,0.12051,3,0.11006,1,0.12866);
INSERT INTO "metric_summary" VALUES(11,1,11,4,0,1,0.25,4,1.0,1,0.25,4,1.0);
INSERT INTO "metric_summary" VALUES(12,1,12,1,0,2,4.62916666666666642981e+01,2,4.62916666666666642981e+01,2,4.62916666666666642981e+01,2,4.62916666666666642981e+01);
INSERT INTO "metric_summary" VALUES(13,1,13,1,0,2,538849280.0,2,538849280.0,2,538849280.0,2,538849280.0);
CREATE TABLE points(series INTEGER, step INTEGER, value REAL, PRIMARY KEY(series, step)) WITHOUT ROWID;
INSERT INTO "points" VALUES(1,0,5.39495350307587440141e+00);
INSERT INTO "points" VALUES(1,2,5.36459425859379);
INSERT INTO "points" VALUES(1,4,5.35422676553328802384e+00);
INSERT INTO "points" VALUES(2,0,2.20291903962415773314e+02);
INSERT INTO "points" VALUES(2,2,2.13704508320172891443e+02);
INSERT INTO "points" VALUES(2,4,2.11500373730761253915e+02);
INSERT INTO "points" VALUES(3,0,0.0);
INSERT INTO "points" VALUES(3,2,0.0);
INSERT INTO "points" VALUES(3,4,0.0);
INSERT INTO "points" VALUES(4,0,1.79576418294901680953e+09);
INSERT INTO "points" VALUES(4,1,1.79576418327425384518e+09);
INSERT INTO "points" VALUES(4,2,1.79576418339699268346e+09);
INSERT INTO "points" VALUES(4,3,1.7957641839702785015e+09);
INSERT INTO "points" VALUES(4,4,1.79576418409093856816e+09);
INSERT INTO "points" VALUES(5,1,5.34529638290405273437e+00);
INSERT INTO "points" VALUES(5,2,5.09214830398559570312e+00);
INSERT INTO "points" VALUES(5,3,5.54866123199462890625e+00);
INSERT INTO "points" VALUES(5,4,4.85056781768798828125e+00);
INSERT INTO "points" VALUES(6,1,0.0001);
INSERT INTO "points" VALUES(6,2,0.0001);
INSERT INTO "points" VALUES(6,3,7.50000000000000069822e-05);
INSERT INTO "points" VALUES(6,4,2.50000000000000113624e-05);
INSERT INTO "points" VALUES(7,1,1.10472238063812255859e+00);
INSERT INTO "points" VALUES(7,2,1.29407036304473876953e+00);
INSERT INTO "points" VALUES(7,3,1.19147312641143798828e+00);
INSERT INTO "points" VALUES(7,4,1.25678145885467529296e+00);
INSERT INTO "points" VALUES(8,1,112.0);
INSERT INTO "points" VALUES(8,2,210.0);
INSERT INTO "points" VALUES(8,3,313.0);
INSERT INTO "points" VALUES(8,4,409.0);
INSERT INTO "points" VALUES(9,1,870.5);
INSERT INTO "points" VALUES(9,2,799.3);
INSERT INTO "points" VALUES(9,3,935.9);
INSERT INTO "points" VALUES(9,4,796.6);
INSERT INTO "points" VALUES(10,1,0.12866);
INSERT INTO "points" VALUES(10,2,0.12261);
INSERT INTO "points" VALUES(10,3,0.11006);
INSERT INTO "points" VALUES(10,4,0.12051);
INSERT INTO "points" VALUES(11,1,0.25);
INSERT INTO "points" VALUES(11,2,0.5);
INSERT INTO "points" VALUES(11,3,0.75);
INSERT INTO "points" VALUES(11,4,1.0);
INSERT INTO "points" VALUES(12,2,4.62916666666666642981e+01);
INSERT INTO "points" VALUES(13,2,538849280.0);
CREATE TABLE "runs" (
   "id" INTEGER PRIMARY KEY,
   "name" TEXT NOT NULL DEFAULT '',
   "state" TEXT NOT NULL DEFAULT 'queued',
   "wanted" TEXT,
   "held" INTEGER NOT NULL DEFAULT 0,
   "priority" INTEGER NOT NULL DEFAULT 0,
   "position" INTEGER NOT NULL DEFAULT 0,
   "not_before" REAL,
   "wait_kind" TEXT,
   "wait_reason" TEXT,
   "sweep" TEXT NOT NULL DEFAULT '',
   "tags" TEXT,
   "note" TEXT NOT NULL DEFAULT '',
   "preset" TEXT NOT NULL DEFAULT '',
   "model" TEXT NOT NULL DEFAULT '',
   "data" TEXT NOT NULL DEFAULT '',
   "method" TEXT NOT NULL DEFAULT '',
   "objective" TEXT NOT NULL DEFAULT '',
   "parent_run" INTEGER,
   "parent_step" INTEGER,
   "resume_step" INTEGER,
   "gpus_wanted" INTEGER DEFAULT 1,
   "gpus_pinned" TEXT,
   "gpus" TEXT,
   "share" INTEGER NOT NULL DEFAULT 0,
   "estimate_bytes" INTEGER,
   "estimate_seconds" REAL,
   "retries" INTEGER DEFAULT 0,
   "attempts" INTEGER DEFAULT 0,
   "pid" INTEGER,
   "pid_started" REAL,
   "host" TEXT,
   "created" REAL NOT NULL,
   "queued" REAL,
   "started" REAL,
   "finished" REAL,
   "busy_seconds" REAL DEFAULT 0,
   "beat" REAL,
   "beat_due" REAL,
   "step" INTEGER DEFAULT 0,
   "total_steps" INTEGER,
   "epoch" REAL,
   "train_loss" REAL,
   "eval_loss" REAL,
   "best_eval" REAL,
   "best_eval_step" INTEGER,
   "step_seconds" REAL,
   "tokens_per_second" REAL,
   "reason" TEXT,
   "error" TEXT,
   "exit_code" INTEGER,
   "trashed" REAL,
   "journal_offset" INTEGER NOT NULL DEFAULT 0,
   "journal_head" INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "runs" VALUES(1,'finished','done',NULL,0,0,1,NULL,NULL,NULL,'','[]','','quick','starter','qa.jsonl','lora','sft',NULL,NULL,NULL,1,'[]','[]',0,688810496,NULL,0,1,NULL,NULL,'vm',1.7957641677204663754e+09,1.7957641677204663754e+09,1.79576416930910253526e+09,1.79576418456892728803e+09,0.0,1.79576418456892728803e+09,1.79576424567923593521e+09,4,4,1.0,4.85056781768798828125e+00,5.35422676553328802384e+00,5.35422676553328802384e+00,4,0.12051,796.6,NULL,NULL,0,NULL,8431,4197405977);
INSERT INTO "runs" VALUES(2,'failed','failed',NULL,0,0,2,NULL,NULL,NULL,'','[]','','quick','starter','gone.jsonl','lora','sft',NULL,NULL,NULL,1,'[]','[]',0,688810496,NULL,0,1,NULL,NULL,'vm',1.79576416817038750643e+09,1.79576416817038750643e+09,1.7957641873857433796e+09,1795764200.74575,0.0,1795764200.74575,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'/home/work/data/gone.jsonl does not exist','/home/work/data/gone.jsonl does not exist
Did you mean /home/work/data/qa.jsonl?',2,NULL,543,3037980504);
INSERT INTO "runs" VALUES(3,'waiting','queued',NULL,1,0,3,NULL,'held','held by you','','[]','','quick','starter','qa.jsonl','lora','sft',NULL,NULL,NULL,1,'[]','[]',0,688810496,NULL,0,0,NULL,NULL,NULL,1.7957641686149797439e+09,1.7957641686149797439e+09,NULL,NULL,0.0,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0);
CREATE TABLE "samples" (
   "id" INTEGER PRIMARY KEY,
   "run_id" INTEGER,
   "step" INTEGER,
   "time" REAL,
   "detail" TEXT
);
INSERT INTO "samples" VALUES(1,1,0,1.79576418294285845757e+09,'{"prompt":"Where is my card?","text":"It is a country."}');
INSERT INTO "samples" VALUES(2,1,0,1.79576418294899225235e+09,'{"prompt":"How do I put a run into the queue?","reference":"Use `finetop add` with the same flags as `finetop train`; it prints the number of the run.","text":"You can see the mouth."}');
INSERT INTO "samples" VALUES(3,1,2,1.79576418363503313062e+09,'{"prompt":"Where is my card?","text":"It is a country."}');
INSERT INTO "samples" VALUES(4,1,2,1.79576418364437270162e+09,'{"prompt":"How do I put a run into the queue?","reference":"Use `finetop add` with the same flags as `finetop train`; it prints the number of the run.","text":"You can see the mouth."}');
INSERT INTO "samples" VALUES(5,1,4,1.79576418438724970819e+09,'{"prompt":"Where is my card?","text":"It is a country."}');
INSERT INTO "samples" VALUES(6,1,4,1.79576418439581918717e+09,'{"prompt":"How do I put a run into the queue?","reference":"Use `finetop add` with the same flags as `finetop train`; it prints the number of the run.","text":"You can see the mouth."}');
CREATE TABLE settings(run_id INTEGER, key TEXT, value TEXT, origin TEXT, PRIMARY KEY(run_id, key)) WITHOUT ROWID;
INSERT INTO "settings" VALUES(1,'data.files','["/home/work/data/qa.jsonl"]','--data-file');
INSERT INTO "settings" VALUES(1,'data.format','"auto"','default');
INSERT INTO "settings" VALUES(1,'data.map','{}','default');
INSERT INTO "settings" VALUES(1,'data.max_bad_share','0.05','default');
INSERT INTO "settings" VALUES(1,'data.max_length','2048','default');
INSERT INTO "settings" VALUES(1,'data.overlong','"cut"','default');
INSERT INTO "settings" VALUES(1,'data.seed','0','default');
INSERT INTO "settings" VALUES(1,'data.system','""','default');
INSERT INTO "settings" VALUES(1,'data.template','"auto"','default');
INSERT INTO "settings" VALUES(1,'data.train_on','"assistant"','default');
INSERT INTO "settings" VALUES(1,'data.val_files','[]','default');
INSERT INTO "settings" VALUES(1,'data.val_fraction','0.1','default');
INSERT INTO "settings" VALUES(1,'eval.classify','"likelihood"','default');
INSERT INTO "settings" VALUES(1,'eval.every','2','--set');
INSERT INTO "settings" VALUES(1,'eval.keep_predictions','20','default');
INSERT INTO "settings" VALUES(1,'eval.max_examples','3','--set');
INSERT INTO "settings" VALUES(1,'eval.max_new_tokens','8','--set');
INSERT INTO "settings" VALUES(1,'eval.metrics','["exact_match"]','--set');
INSERT INTO "settings" VALUES(1,'eval.normalisation','"case"','default');
INSERT INTO "settings" VALUES(1,'eval.prompts','["Where is my card?"]','--set');
INSERT INTO "settings" VALUES(1,'eval.schema','""','default');
INSERT INTO "settings" VALUES(1,'lora.alpha','32','default');
INSERT INTO "settings" VALUES(1,'lora.dora','false','default');
INSERT INTO "settings" VALUES(1,'lora.dropout','0.0','default');
INSERT INTO "settings" VALUES(1,'lora.r','16','default');
INSERT INTO "settings" VALUES(1,'lora.rslora','false','default');
INSERT INTO "settings" VALUES(1,'lora.targets','"all-linear"','default');
INSERT INTO "settings" VALUES(1,'method.kind','"lora"','default');
INSERT INTO "settings" VALUES(1,'method.objective','"sft"','default');
INSERT INTO "settings" VALUES(1,'model.attention','"auto"','default');
INSERT INTO "settings" VALUES(1,'model.checkpoint','""','default');
INSERT INTO "settings" VALUES(1,'model.dtype','"auto"','default');
INSERT INTO "settings" VALUES(1,'model.name','"starter"','default');
INSERT INTO "settings" VALUES(1,'model.revision','""','default');
INSERT INTO "settings" VALUES(1,'model.trust_remote_code','false','default');
INSERT INTO "settings" VALUES(1,'optim.betas','[0.9,0.999]','default');
INSERT INTO "settings" VALUES(1,'optim.grad_clip','1.0','default');
INSERT INTO "settings" VALUES(1,'optim.learning_rate','0.0001','preset quick');
INSERT INTO "settings" VALUES(1,'optim.name','"adamw"','default');
INSERT INTO "settings" VALUES(1,'optim.schedule','"cosine"','default');
INSERT INTO "settings" VALUES(1,'optim.warmup','0.03','default');
INSERT INTO "settings" VALUES(1,'optim.weight_decay','0.0','default');
INSERT INTO "settings" VALUES(1,'run.gpu_count','"auto"','default');
INSERT INTO "settings" VALUES(1,'run.gpus','[]','default');
INSERT INTO "settings" VALUES(1,'run.name','"finished"','--name');
INSERT INTO "settings" VALUES(1,'run.on_oom','"shrink"','default');
INSERT INTO "settings" VALUES(1,'run.priority','0','default');
INSERT INTO "settings" VALUES(1,'run.retries','0','default');
INSERT INTO "settings" VALUES(1,'run.share','false','default');
INSERT INTO "settings" VALUES(1,'run.tags','[]','default');
INSERT INTO "settings" VALUES(1,'save.every','0','default');
INSERT INTO "settings" VALUES(1,'save.keep_best','true','default');
INSERT INTO "settings" VALUES(1,'save.keep_epochs','0','default');
INSERT INTO "settings" VALUES(1,'save.keep_last','3','default');
INSERT INTO "settings" VALUES(1,'train.activation_checkpointing','"auto"','default');
INSERT INTO "settings" VALUES(1,'train.batch_size','2','preset quick');
INSERT INTO "settings" VALUES(1,'train.deterministic','false','default');
INSERT INTO "settings" VALUES(1,'train.early_stopping','0','default');
INSERT INTO "settings" VALUES(1,'train.epochs','1','preset quick');
INSERT INTO "settings" VALUES(1,'train.max_steps','4','--set');
INSERT INTO "settings" VALUES(1,'train.micro_tokens','"auto"','default');
INSERT INTO "settings" VALUES(1,'train.seed','0','default');
INSERT INTO "settings" VALUES(1,'train.shuffle','true','default');
INSERT INTO "settings" VALUES(1,'train.threads','1','--set');
INSERT INTO "settings" VALUES(2,'data.files','["/home/work/data/gone.jsonl"]','--data-file');
INSERT INTO "settings" VALUES(2,'data.format','"auto"','default');
INSERT INTO "settings" VALUES(2,'data.map','{}','default');
INSERT INTO "settings" VALUES(2,'data.max_bad_share','0.05','default');
INSERT INTO "settings" VALUES(2,'data.max_length','2048','default');
INSERT INTO "settings" VALUES(2,'data.overlong','"cut"','default');
INSERT INTO "settings" VALUES(2,'data.seed','0','default');
INSERT INTO "settings" VALUES(2,'data.system','""','default');
INSERT INTO "settings" VALUES(2,'data.template','"auto"','default');
INSERT INTO "settings" VALUES(2,'data.train_on','"assistant"','default');
INSERT INTO "settings" VALUES(2,'data.val_files','[]','default');
INSERT INTO "settings" VALUES(2,'data.val_fraction','0.1','default');
INSERT INTO "settings" VALUES(2,'eval.classify','"likelihood"','default');
INSERT INTO "settings" VALUES(2,'eval.every','"epoch"','default');
INSERT INTO "settings" VALUES(2,'eval.keep_predictions','20','default');
INSERT INTO "settings" VALUES(2,'eval.max_examples','0','default');
INSERT INTO "settings" VALUES(2,'eval.max_new_tokens','128','default');
INSERT INTO "settings" VALUES(2,'eval.metrics','[]','default');
INSERT INTO "settings" VALUES(2,'eval.normalisation','"case"','default');
INSERT INTO "settings" VALUES(2,'eval.prompts','[]','default');
INSERT INTO "settings" VALUES(2,'eval.schema','""','default');
INSERT INTO "settings" VALUES(2,'lora.alpha','32','default');
INSERT INTO "settings" VALUES(2,'lora.dora','false','default');
INSERT INTO "settings" VALUES(2,'lora.dropout','0.0','default');
INSERT INTO "settings" VALUES(2,'lora.r','16','default');
INSERT INTO "settings" VALUES(2,'lora.rslora','false','default');
INSERT INTO "settings" VALUES(2,'lora.targets','"all-linear"','default');
INSERT INTO "settings" VALUES(2,'method.kind','"lora"','default');
INSERT INTO "settings" VALUES(2,'method.objective','"sft"','default');
INSERT INTO "settings" VALUES(2,'model.attention','"auto"','default');
INSERT INTO "settings" VALUES(2,'model.checkpoint','""','default');
INSERT INTO "settings" VALUES(2,'model.dtype','"auto"','default');
INSERT INTO "settings" VALUES(2,'model.name','"starter"','default');
INSERT INTO "settings" VALUES(2,'model.revision','""','default');
INSERT INTO "settings" VALUES(2,'model.trust_remote_code','false','default');
INSERT INTO "settings" VALUES(2,'optim.betas','[0.9,0.999]','default');
INSERT INTO "settings" VALUES(2,'optim.grad_clip','1.0','default');
INSERT INTO "settings" VALUES(2,'optim.learning_rate','0.0001','preset quick');
INSERT INTO "settings" VALUES(2,'optim.name','"adamw"','default');
INSERT INTO "settings" VALUES(2,'optim.schedule','"cosine"','default');
INSERT INTO "settings" VALUES(2,'optim.warmup','0.03','default');
INSERT INTO "settings" VALUES(2,'optim.weight_decay','0.0','default');
INSERT INTO "settings" VALUES(2,'run.gpu_count','"auto"','default');
INSERT INTO "settings" VALUES(2,'run.gpus','[]','default');
INSERT INTO "settings" VALUES(2,'run.name','"failed"','--name');
INSERT INTO "settings" VALUES(2,'run.on_oom','"shrink"','default');
INSERT INTO "settings" VALUES(2,'run.priority','0','default');
INSERT INTO "settings" VALUES(2,'run.retries','0','default');
INSERT INTO "settings" VALUES(2,'run.share','false','default');
INSERT INTO "settings" VALUES(2,'run.tags','[]','default');
INSERT INTO "settings" VALUES(2,'save.every','0','default');
INSERT INTO "settings" VALUES(2,'save.keep_best','true','default');
INSERT INTO "settings" VALUES(2,'save.keep_epochs','0','default');
INSERT INTO "settings" VALUES(2,'save.keep_last','3','default');
INSERT INTO "settings" VALUES(2,'train.activation_checkpointing','"auto"','default');
INSERT INTO "settings" VALUES(2,'train.batch_size','2','preset quick');
INSERT INTO "settings" VALUES(2,'train.deterministic','false','default');
INSERT INTO "settings" VALUES(2,'train.early_stopping','0','default');
INSERT INTO "settings" VALUES(2,'train.epochs','1','preset quick');
INSERT INTO "settings" VALUES(2,'train.max_steps','4','--set');
INSERT INTO "settings" VALUES(2,'train.micro_tokens','"auto"','default');
INSERT INTO "settings" VALUES(2,'train.seed','0','default');
INSERT INTO "settings" VALUES(2,'train.shuffle','true','default');
INSERT INTO "settings" VALUES(2,'train.threads','1','--set');
INSERT INTO "settings" VALUES(3,'data.files','["/home/work/data/qa.jsonl"]','--data-file');
INSERT INTO "settings" VALUES(3,'data.format','"auto"','default');
INSERT INTO "settings" VALUES(3,'data.map','{}','default');
INSERT INTO "settings" VALUES(3,'data.max_bad_share','0.05','default');
INSERT INTO "settings" VALUES(3,'data.max_length','2048','default');
INSERT INTO "settings" VALUES(3,'data.overlong','"cut"','default');
INSERT INTO "settings" VALUES(3,'data.seed','0','default');
INSERT INTO "settings" VALUES(3,'data.system','""','default');
INSERT INTO "settings" VALUES(3,'data.template','"auto"','default');
INSERT INTO "settings" VALUES(3,'data.train_on','"assistant"','default');
INSERT INTO "settings" VALUES(3,'data.val_files','[]','default');
INSERT INTO "settings" VALUES(3,'data.val_fraction','0.1','default');
INSERT INTO "settings" VALUES(3,'eval.classify','"likelihood"','default');
INSERT INTO "settings" VALUES(3,'eval.every','2','--set');
INSERT INTO "settings" VALUES(3,'eval.keep_predictions','20','default');
INSERT INTO "settings" VALUES(3,'eval.max_examples','3','--set');
INSERT INTO "settings" VALUES(3,'eval.max_new_tokens','8','--set');
INSERT INTO "settings" VALUES(3,'eval.metrics','["exact_match"]','--set');
INSERT INTO "settings" VALUES(3,'eval.normalisation','"case"','default');
INSERT INTO "settings" VALUES(3,'eval.prompts','[]','default');
INSERT INTO "settings" VALUES(3,'eval.schema','""','default');
INSERT INTO "settings" VALUES(3,'lora.alpha','32','default');
INSERT INTO "settings" VALUES(3,'lora.dora','false','default');
INSERT INTO "settings" VALUES(3,'lora.dropout','0.0','default');
INSERT INTO "settings" VALUES(3,'lora.r','16','default');
INSERT INTO "settings" VALUES(3,'lora.rslora','false','default');
INSERT INTO "settings" VALUES(3,'lora.targets','"all-linear"','default');
INSERT INTO "settings" VALUES(3,'method.kind','"lora"','default');
INSERT INTO "settings" VALUES(3,'method.objective','"sft"','default');
INSERT INTO "settings" VALUES(3,'model.attention','"auto"','default');
INSERT INTO "settings" VALUES(3,'model.checkpoint','""','default');
INSERT INTO "settings" VALUES(3,'model.dtype','"auto"','default');
INSERT INTO "settings" VALUES(3,'model.name','"starter"','default');
INSERT INTO "settings" VALUES(3,'model.revision','""','default');
INSERT INTO "settings" VALUES(3,'model.trust_remote_code','false','default');
INSERT INTO "settings" VALUES(3,'optim.betas','[0.9,0.999]','default');
INSERT INTO "settings" VALUES(3,'optim.grad_clip','1.0','default');
INSERT INTO "settings" VALUES(3,'optim.learning_rate','0.0001','preset quick');
INSERT INTO "settings" VALUES(3,'optim.name','"adamw"','default');
INSERT INTO "settings" VALUES(3,'optim.schedule','"cosine"','default');
INSERT INTO "settings" VALUES(3,'optim.warmup','0.03','default');
INSERT INTO "settings" VALUES(3,'optim.weight_decay','0.0','default');
INSERT INTO "settings" VALUES(3,'run.gpu_count','"auto"','default');
INSERT INTO "settings" VALUES(3,'run.gpus','[]','default');
INSERT INTO "settings" VALUES(3,'run.name','"waiting"','--name');
INSERT INTO "settings" VALUES(3,'run.on_oom','"shrink"','default');
INSERT INTO "settings" VALUES(3,'run.priority','0','default');
INSERT INTO "settings" VALUES(3,'run.retries','0','default');
INSERT INTO "settings" VALUES(3,'run.share','false','default');
INSERT INTO "settings" VALUES(3,'run.tags','[]','default');
INSERT INTO "settings" VALUES(3,'save.every','0','default');
INSERT INTO "settings" VALUES(3,'save.keep_best','true','default');
INSERT INTO "settings" VALUES(3,'save.keep_epochs','0','default');
INSERT INTO "settings" VALUES(3,'save.keep_last','3','default');
INSERT INTO "settings" VALUES(3,'train.activation_checkpointing','"auto"','default');
INSERT INTO "settings" VALUES(3,'train.batch_size','2','preset quick');
INSERT INTO "settings" VALUES(3,'train.deterministic','false','default');
INSERT INTO "settings" VALUES(3,'train.early_stopping','0','default');
INSERT INTO "settings" VALUES(3,'train.epochs','1','preset quick');
INSERT INTO "settings" VALUES(3,'train.max_steps','4','--set');
INSERT INTO "settings" VALUES(3,'train.micro_tokens','"auto"','default');
INSERT INTO "settings" VALUES(3,'train.seed','0','default');
INSERT INTO "settings" VALUES(3,'train.shuffle','true','default');
INSERT INTO "settings" VALUES(3,'train.threads','1','--set');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX runs_waiting ON runs(priority DESC, position) WHERE state = 'queued';
CREATE INDEX "idx_runs_state"
    ON "runs" ("state");
CREATE INDEX "idx_events_run_id"
    ON "events" ("run_id");
CREATE INDEX "idx_evaluations_run_id_step"
    ON "evaluations" ("run_id", "step");
CREATE INDEX "idx_samples_run_id_step"
    ON "samples" ("run_id", "step");
CREATE UNIQUE INDEX "idx_metric_keys_key"
    ON "metric_keys" ("key");
CREATE UNIQUE INDEX "idx_metric_summary_run_id_key_id"
    ON "metric_summary" ("run_id", "key_id");
CREATE INDEX "idx_gpu_samples_run_id"
    ON "gpu_samples" ("run_id");
CREATE VIEW "metrics" AS 
        SELECT s.run_id AS run, k.key AS key, p.step AS step, p.value AS value, t.value AS time
        FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id JOIN points p ON p.series = s.id
        LEFT JOIN metric_summary ts ON ts.run_id = s.run_id
                                   AND ts.key_id = (SELECT id FROM metric_keys WHERE key = 'time')
        LEFT JOIN points t ON t.series = ts.id AND t.step = p.step
        WHERE k.key <> 'time';
CREATE VIEW "run_metrics" AS 
        SELECT s.run_id AS run, k.key AS key, s.count, s.nonfinite, s.first, s.first_step, s.last, s.last_step,
               s.low AS min, s.low_step AS min_step, s.high AS max, s.high_step AS max_step
        FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id
        WHERE s.count > 0 AND k.key <> 'time';
CREATE VIEW "run_summary" AS 
        SELECT id, name, CASE WHEN state = 'queued' AND held THEN 'held' ELSE state END AS state, step, total_steps,
               round(train_loss, 4) AS train_loss, round(eval_loss, 4) AS eval_loss, round(best_eval, 4) AS best_eval,
               best_eval_step, model, data, preset, method, objective, sweep,
               datetime(created, 'unixepoch') AS created_utc, datetime(started, 'unixepoch') AS started_utc,
               datetime(finished, 'unixepoch') AS finished_utc, round(finished - started, 1) AS seconds,
               gpus, round(estimate_bytes / 1073741824.0, 1) AS estimate_gib, coalesce(reason, wait_reason) AS reason,
               parent_run, parent_step, tags, note
        FROM runs WHERE trashed IS NULL ORDER BY id DESC;
CREATE VIEW "queue" AS 
        SELECT row_number() OVER (ORDER BY priority DESC, position, id) AS place, id, name, priority,
               CASE WHEN held THEN 'held' ELSE 'waiting' END AS state, wait_reason,
               datetime(queued, 'unixepoch') AS queued_utc
        FROM runs WHERE state = 'queued' AND trashed IS NULL;
COMMIT;
PRAGMA application_id=1182027632;
PRAGMA user_version=1;
