//! From the Dockerfile to the plan: pure, so that the same Dockerfile, arguments and base images
//! always give the same plan (invariant I11).

pub mod args;
mod config;
mod copy;
mod run;
mod stages;
mod state;
mod survey;

use std::collections::BTreeMap;

use dockerfile::{Diagnostic, Dockerfile, Instruction, InstructionKind, parse_instruction};
use image::Platform;

use self::args::{Global, unused};
use self::stages::Graph;
use self::state::{Place, State, shown};
use self::survey::index;
use crate::plan::environment::{DEFAULT_PATH, PROXY, in_env};
use crate::plan::{
    CopyOp, From, HistoryItem, ImageKey, ImagePlan, Op, Plan, ResolvedImages, Step, StepId, Target,
};
use crate::{Context, Request};

/// The result of lowering.
#[derive(Debug)]
pub enum LoweringResult {
    /// The whole plan.
    Plan(Box<Plan>),
    /// Images whose documents must be known first.
    Needs(Vec<ImageKey>),
}

/// Makes the plan for the request's target on one platform, or says which images it needs to know for that.
///
/// # Errors
/// What is wrong with the Dockerfile; at least one diagnostic.
pub fn lower(
    file: &Dockerfile,
    request: &Request,
    platform: &Platform,
    resolved: &ResolvedImages,
) -> Result<LoweringResult, Vec<Diagnostic>> {
    let target = target(file, request)?;
    let mut lowerer = Lowerer::new(file, request, platform, resolved).map_err(|d| vec![d])?;
    lowerer.survey(target).map_err(|d| vec![d])?;
    lowerer.all(target)?;
    match lowerer.stages.remove(&target) {
        Some(state) if lowerer.needs.is_empty() => {
            Ok(LoweringResult::Plan(Box::new(lowerer.finish(state))))
        }
        _ => {
            lowerer.needs.sort();
            lowerer.needs.dedup();
            Ok(LoweringResult::Needs(lowerer.needs))
        }
    }
}

/// The images that stages of the target's own platform are built on, as far as they are known
/// without looking at any.
///
/// # Errors
/// What is wrong with the Dockerfile; at least one diagnostic.
pub(crate) fn bases(file: &Dockerfile, request: &Request) -> Result<Vec<String>, Vec<Diagnostic>> {
    let target = target(file, request)?;
    let resolved = ResolvedImages::default();
    let mut lowerer =
        Lowerer::new(file, request, &request.build_platform, &resolved).map_err(|d| vec![d])?;
    lowerer.survey(target).map_err(|d| vec![d])?;
    let mut names = Vec::new();
    for at in lowerer.order(target).map_err(|d| vec![d])? {
        let stage = &file.stages[at];
        let own = stage.platform.as_ref().is_none_or(|word| word.text.contains("TARGET"));
        let name = lowerer.global.expand(&stage.base).map_err(|d| vec![d])?;
        let image = lowerer.base_stage(&name, at).is_none() && lowerer.is_image(&name, at);
        if own && image && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn target(file: &Dockerfile, request: &Request) -> Result<usize, Vec<Diagnostic>> {
    let Some(last) = file.stages.len().checked_sub(1) else {
        let message = "the Dockerfile has no FROM instruction";
        return Err(vec![Diagnostic::error("no-stage", message, dockerfile::Span::default())]);
    };
    let Some(name) = request.target.as_deref() else { return Ok(last) };
    file.stage(name).ok_or_else(|| {
        let names = file.stages.iter().filter_map(|stage| stage.name.as_deref());
        let near = dockerfile::closest(name, names.clone());
        let help = near.map(|near| format!("did you mean {near:?}?")).unwrap_or_else(|| {
            let names: Vec<_> = names.collect();
            if names.is_empty() {
                "no stage has a name".to_owned()
            } else {
                format!("the stages are {}", names.join(", "))
            }
        });
        let message = format!("there is no target stage {name:?}");
        let span = file.stages[last].span;
        vec![Diagnostic::error("unknown-target", message, span).with_help(help)]
    })
}

/// Applies instructions that change a configuration only, as `commit --change` gives them.
///
/// # Errors
/// A line is no instruction, or one that makes files.
pub(crate) fn change(config: &mut image::Config, lines: &[String]) -> crate::Result<()> {
    for line in lines {
        let refuse =
            |why: &str| crate::Error::Change { change: line.clone(), reason: why.to_owned() };
        use InstructionKind::{Add, Arg, Copy, Run, Workdir};
        let (instruction, mut problems) = parse_instruction(line);
        problems.retain(|problem| problem.severity == dockerfile::Severity::Error);
        let instruction = match (instruction, problems.first()) {
            (Some(instruction), None) => instruction,
            (_, problem) => {
                let why =
                    problem.map_or("it is no instruction", |problem| problem.message.as_str());
                return Err(refuse(why));
            }
        };
        let mut state = State::scratch(Platform::host());
        state.config = config.clone();
        match &instruction.kind {
            Add(_) | Arg(_) | Copy(_) | Run(_) => {
                return Err(refuse("this instruction does more than change the configuration"));
            }
            Workdir(word) => {
                let text = state.expand(word).map_err(|problem| refuse(&problem.message))?;
                let own = &mut state.config.config.working_dir;
                *own = crate::plan::path::clean(own, &text);
            }
            _ => config::fold(&instruction, &mut state)
                .map_err(|problem| refuse(&problem.message))?,
        }
        *config = state.config;
    }
    Ok(())
}

/// Whether a text is the name of a stage or its number.
fn is_stage(text: &str, at: usize, name: Option<&str>) -> bool {
    name.is_some_and(|name| name.eq_ignore_ascii_case(text)) || text == at.to_string()
}

struct Lowerer<'a> {
    file: &'a Dockerfile,
    request: &'a Request,
    /// What is built for.
    target: &'a Platform,
    resolved: &'a ResolvedImages,
    global: Global,
    plan: Plan,
    also: Vec<StepId>,
    stages: BTreeMap<usize, State>,
    images: BTreeMap<ImageKey, StepId>,
    needs: Vec<ImageKey>,
    graph: Graph,
    /// Whether a stage turned out to need one that is not lowered, because a variable names it.
    late: bool,
}

impl<'a> Lowerer<'a> {
    fn new(
        file: &'a Dockerfile,
        request: &'a Request,
        target: &'a Platform,
        resolved: &'a ResolvedImages,
    ) -> Result<Lowerer<'a>, Diagnostic> {
        Ok(Lowerer {
            file,
            request,
            target,
            resolved,
            global: Global::new(&file.global_args, request, target)?,
            plan: Plan::default(),
            also: Vec::new(),
            stages: BTreeMap::new(),
            images: BTreeMap::new(),
            needs: Vec::new(),
            graph: Graph::default(),
            late: false,
        })
    }

    /// The whole plan, when the target stage has come to `state`.
    fn finish(self, state: State) -> Plan {
        let (file, request, mut plan) = (self.file, self.request, self.plan);
        let mut config = state.config;
        request.image.configure(&mut config, &request.labels);
        plan.targets = vec![Target {
            platform: self.target.clone(),
            step: state.rootfs,
            also: self.also,
            image: ImagePlan { base: state.base, config, history: state.history },
        }];
        plan.warnings.extend(unused(request, file));
        if !self.target.is_known() {
            plan.warnings
                .push(format!("the platform {} is not known: is it misspelled?", self.target));
        }
        let stages = || file.stages.iter().enumerate();
        let is_known =
            |filter: &str| stages().any(|(at, stage)| is_stage(filter, at, stage.name.as_deref()));
        let unknown = request.no_cache_filter.iter().filter(|filter| !is_known(filter));
        plan.warnings
            .extend(unknown.map(|name| format!("there is no stage {name:?} to run again")));
        plan
    }

    /// How many steps an instruction makes.
    fn steps(&self, instruction: &Instruction) -> usize {
        use InstructionKind::{Add, Copy, Run, Volume, Workdir};
        match &instruction.kind {
            Run(_) | Copy(_) | Add(_) | Workdir(_) => 1,
            Volume(words) if self.is_buildah() => words.len(),
            _ => 0,
        }
    }

    /// Whether a name that is not an earlier stage means an image.
    fn is_image(&self, name: &str, at: usize) -> bool {
        let own = self.file.stages[at].name.as_deref();
        let context = self.request.named_context(name).map(|(_, context)| context);
        !name.is_empty()
            && name != "scratch"
            && !name.contains('$')
            && (context.is_some() || own.is_none_or(|own| !own.eq_ignore_ascii_case(name)))
            && matches!(context, None | Some(Context::Image(_)))
    }

    /// The `ONBUILD` triggers that the base of stage `at` leaves.
    fn triggers(
        &self,
        at: usize,
        base_stage: Option<usize>,
        base: &str,
    ) -> Result<Vec<Instruction>, Diagnostic> {
        let texts = match base_stage {
            Some(stage) => {
                let own = self.file.stages[stage].instructions.iter();
                let trigger = |instruction: &Instruction| match &instruction.kind {
                    InstructionKind::Onbuild(trigger) => Some(trigger.text.clone()),
                    _ => None,
                };
                own.filter_map(trigger).collect()
            }
            None => {
                let key = self.image_key(at, base)?;
                let image = self.resolved.images.get(&key);
                image.map(|image| image.config().config.on_build.clone()).unwrap_or_default()
            }
        };
        let span = self.file.stages[at].base.span;
        let mut triggers = Vec::new();
        for text in texts {
            let (instruction, mut diagnostics) = parse_instruction(&text);
            diagnostics.retain(|d| d.severity == dockerfile::Severity::Error);
            if let Some(problem) = diagnostics.first() {
                let message = format!("ONBUILD {text:?} of {base} cannot be read: {problem}");
                return Err(Diagnostic::error("bad-trigger", message, span));
            }
            if let Some(mut instruction) = instruction {
                instruction.span = span;
                triggers.push(instruction);
            }
        }
        Ok(triggers)
    }

    fn platform(&self, at: usize) -> Result<Platform, Diagnostic> {
        let Some(word) = &self.file.stages[at].platform else {
            return Ok(self.target.clone());
        };
        let text = self.global.expand(word)?;
        text.parse().map_err(|error: image::Error| {
            Diagnostic::error("bad-platform", error.to_string(), word.span)
        })
    }

    fn image_key(&self, at: usize, name: &str) -> Result<ImageKey, Diagnostic> {
        Ok(ImageKey { name: name.to_owned(), platform: self.platform(at)? })
    }

    /// Lowers one stage; `None` when something it needs is not known yet.
    fn stage(&mut self, at: usize) -> Result<Option<State>, Diagnostic> {
        let stage = &self.file.stages[at];
        let base = self.global.expand(&stage.base)?;
        if base.is_empty() {
            let message = "the base of this stage is empty: its variables have no value here";
            return Err(Diagnostic::error("empty-base", message, stage.base.span)
                .with_help("declare them with ARG before the first FROM".to_owned()));
        }
        let base_stage = self.base_stage(&base, at);
        let triggers = self.triggers(at, base_stage, &base)?;
        let instructions: Vec<&Instruction> = triggers.iter().chain(&stage.instructions).collect();
        let total = 1 + instructions.iter().map(|i| self.steps(i)).sum::<usize>();
        let label = self.label(at)?;
        let fresh = self.fresh(at);
        let start = match base_stage {
            Some(stage) => self.stages.get(&stage).cloned(),
            None => match self.files(at, &base, &label, total)? {
                Some(state) => Some(state),
                None => self.base(at, &base, &label, total)?,
            },
        };
        let Some(mut state) = start else { return Ok(None) };
        state.config.config.on_build.clear();
        state.own_cmd = false;
        if in_env(&state.config.config.env, "PATH").is_none() {
            state.config.config.env.insert(0, DEFAULT_PATH.to_owned());
        }
        if !self.after(at, &mut state)? {
            return Ok(None);
        }
        let mut number = 1;
        let mut known = true;
        for instruction in instructions {
            let mut place = Place { stage: at, label: &label, number: &mut number, total, fresh };
            known &= self.instruction(instruction, &mut state, &mut place)?;
        }
        Ok(Some(state).filter(|_| known))
    }

    /// What the names of a stage's steps begin with.
    fn label(&self, at: usize) -> Result<String, Diagnostic> {
        let stage = match &self.file.stages[at].name {
            Some(name) => format!("{name} "),
            None if self.file.stages.len() == 1 => String::new(),
            None => format!("stage-{at} "),
        };
        match self.request.platforms.len() {
            0 | 1 => Ok(stage),
            _ => Ok(format!("{} {stage}", self.platform(at)?)),
        }
    }

    fn fresh(&self, at: usize) -> bool {
        let name = self.file.stages[at].name.as_deref();
        let filter = &self.request.no_cache_filter;
        self.request.no_cache || filter.iter().any(|filter| is_stage(filter, at, name))
    }

    fn base(
        &mut self,
        at: usize,
        base: &str,
        label: &str,
        total: usize,
    ) -> Result<Option<State>, Diagnostic> {
        let platform = self.platform(at)?;
        let span = self.file.stages[at].base.span;
        if base == "scratch" {
            return Ok(Some(State::scratch(platform)));
        }
        let key = ImageKey { name: base.to_owned(), platform: platform.clone() };
        let name = format!("[{label}1/{total}] FROM {base}");
        let Some(step) = self.image(&key, name, span) else { return Ok(None) };
        let image = &self.resolved.images[&key];
        let mut state = State::scratch(platform);
        let mut config = (**image.config()).clone();
        config.created = None;
        config.rootfs.diff_ids.clear();
        config.history.clear();
        config.rest.clear();
        config.config.rest.clear();
        if !self.request.image.inherit.labels {
            config.config.labels.clear();
        }
        if config.config.working_dir.is_empty() {
            config.config.working_dir = "/".to_owned();
        }
        state.config = config;
        state.rootfs = image.chain_id().map(|_| step);
        state.base = Some(key);
        Ok(Some(state))
    }

    /// The state of a stage whose base is a named context of files: they are its first layer.
    fn files(
        &mut self,
        at: usize,
        base: &str,
        label: &str,
        total: usize,
    ) -> Result<Option<State>, Diagnostic> {
        let Some((context, kind)) = self.request.named_context(base) else { return Ok(None) };
        let mut state = State::scratch(self.platform(at)?);
        match kind {
            Context::Image(_) => return Ok(None),
            Context::Empty => return Ok(Some(state)),
            _ => {}
        }
        let op = CopyOp::everything(From::Context(context.to_owned()));
        let id = StepId(self.plan.steps.len());
        let stage = &self.file.stages[at];
        let text = format!("FROM {base}");
        self.plan.steps.push(Step {
            name: format!("[{label}1/{total}] {text}"),
            place: format!("the build context {base:?}"),
            op: Op::Copy(Box::new(op)),
            parent: None,
            reads: Vec::new(),
            args: BTreeMap::new(),
            instruction: text.clone(),
            span: stage.base.span,
            fresh: false,
        });
        state.rootfs = Some(id);
        state.history.push(HistoryItem { created_by: text, layer: Some(id) });
        Ok(Some(state))
    }

    fn after(&mut self, at: usize, state: &mut State) -> Result<bool, Diagnostic> {
        for word in &self.file.stages[at].after {
            let Some(stage) = self.other(&word.text, at) else {
                let message = format!("--after names {:?}, which is not another stage", word.text);
                return Err(Diagnostic::error("unknown-stage", message, word.span));
            };
            let Some(other) = self.stages.get(&stage) else { return Ok(false) };
            self.also.extend(other.rootfs);
            state.after.extend(other.rootfs);
        }
        Ok(true)
    }

    /// The step that gives an image's files; `None` when the image is not known yet.
    fn image(&mut self, key: &ImageKey, name: String, span: dockerfile::Span) -> Option<StepId> {
        if !self.resolved.images.contains_key(key) {
            self.needs.push(key.clone());
            return None;
        }
        if let Some(step) = self.images.get(key) {
            return Some(*step);
        }
        let step = StepId(self.plan.steps.len());
        self.plan.steps.push(Step {
            instruction: format!("FROM {}", key.name),
            place: format!("image {}", key.name),
            name,
            op: Op::Image(key.clone()),
            parent: None,
            reads: Vec::new(),
            span,
            fresh: false,
            args: BTreeMap::new(),
        });
        self.images.insert(key.clone(), step);
        Some(step)
    }

    /// What `--from` means; `None` when it is an image that is not known yet. A step that is read
    /// is added to `reads`.
    fn source(
        &mut self,
        name: Option<&str>,
        span: dockerfile::Span,
        place: &Place<'_>,
        reads: &mut Vec<StepId>,
    ) -> Result<Option<From>, Diagnostic> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(Some(From::Context(String::new())));
        };
        let mut read = |step: Option<StepId>| match step {
            None => From::Scratch,
            Some(step) => {
                let known = reads.iter().position(|read| *read == step);
                From::Read(known.unwrap_or_else(|| {
                    reads.push(step);
                    reads.len() - 1
                }))
            }
        };
        if let Some(stage) = self.other(name, place.stage) {
            let known = self.stages.get(&stage).map(|state| read(state.rootfs));
            self.late |= self.graph.add(place.stage, stage);
            return Ok(known);
        }
        let context = self.request.named_context(name);
        match context {
            Some((_, Context::Image(_))) | None => {}
            Some((_, Context::Empty)) => return Ok(Some(From::Scratch)),
            Some((context, _)) => return Ok(Some(From::Context(context.to_owned()))),
        }
        if name == "scratch" {
            return Ok(Some(From::Scratch));
        }
        let own = self.file.stages[place.stage].name.as_deref();
        let itself = context.is_none() && own.is_some_and(|own| own.eq_ignore_ascii_case(name));
        if itself || index(name) == Some(place.stage) {
            let message = format!("stage {name:?} cannot read itself");
            return Err(Diagnostic::error("own-stage", message, span));
        }
        if index(name).is_some() {
            let message = format!("there is no stage {name}");
            let last = self.file.stages.len() - 1;
            return Err(Diagnostic::error("unknown-stage", message, span)
                .with_help(format!("the stages are 0 to {last}")));
        }
        let key = ImageKey { name: name.to_owned(), platform: self.target.clone() };
        let Some(step) = self.image(&key, format!("FROM {name}"), span) else { return Ok(None) };
        let layers = self.resolved.images[&key].chain_id().map(|_| step);
        Ok(Some(read(layers)))
    }

    /// Adds a step that continues the file system of the stage and makes a layer.
    fn step(
        &mut self,
        op: Op,
        mut reads: Vec<StepId>,
        created_by: String,
        instruction: &Instruction,
        state: &mut State,
        place: &mut Place<'_>,
    ) {
        reads.append(&mut state.after);
        let id = StepId(self.plan.steps.len());
        *place.number += 1;
        let text = shown(&instruction.text);
        let below = state.rootfs;
        let alone = below.is_some() && matches!(&op, Op::Copy(copy) if copy.is_alone());
        self.plan.steps.push(Step {
            name: format!("[{}{}/{}] {text}", place.label, place.number, place.total),
            place: match self.file.stages[place.stage].name.as_deref() {
                Some(name) => format!("stage {name}"),
                None => format!("stage {}", place.stage),
            },
            op,
            parent: below.filter(|_| !alone),
            reads,
            instruction: text,
            span: instruction.span,
            fresh: place.fresh,
            args: state.visible_args(),
        });
        state.rootfs = Some(id);
        if alone {
            let made = &self.plan.steps[id.0];
            let graft = Step {
                name: format!("[{}{}/{}] linked", place.label, place.number, place.total),
                op: Op::Graft,
                parent: below,
                reads: vec![id],
                fresh: false,
                ..made.clone()
            };
            state.rootfs = Some(StepId(self.plan.steps.len()));
            self.plan.steps.push(graft);
        }
        state.history.push(HistoryItem { created_by, layer: Some(id) });
    }

    /// Lowers one instruction; false when something it needs is not known yet.
    fn instruction(
        &mut self,
        instruction: &Instruction,
        state: &mut State,
        place: &mut Place<'_>,
    ) -> Result<bool, Diagnostic> {
        match &instruction.kind {
            InstructionKind::Run(run) => self.run(run, instruction, state, place),
            InstructionKind::Copy(copy) => self.copy(copy, instruction, state, place),
            InstructionKind::Add(add) => self.add(add, instruction, state, place),
            InstructionKind::Workdir(word) => {
                self.workdir(word, instruction, state, place)?;
                Ok(true)
            }
            InstructionKind::Arg(arg) => {
                let scope = |name: &str| state.variable(name);
                let declared = self.global.declare(arg, &scope)?;
                let mut text = "ARG".to_owned();
                for (name, value) in declared {
                    match value.as_deref().filter(|_| !PROXY.contains(&name.as_str())) {
                        Some(value) => text.push_str(&format!(" {name}={value}")),
                        None => text.push_str(&format!(" {name}")),
                    }
                    state.args.set(&name, value);
                }
                state.note(text);
                Ok(true)
            }
            other => {
                if let InstructionKind::Volume(words) = other {
                    self.volume(words, instruction, state, place)?;
                }
                config::fold(instruction, state)?;
                Ok(true)
            }
        }
    }
}
