//! The measurements, row by row.

use super::floor::{Floors, Pass};
use super::room;
use super::row::{self, Figure, GpuFigures, MeasurementKind, TimedPasses};
use crate::Failure;
use crate::bench::args::BenchGpuArgs;
use crate::bench::bed::{Noise, NoiseBed, SpliceShape, TokenEdit};
use pie_eval::engine::{Done, Machine, Together};
use pie_eval::metrics::median;
use pie_model::Compute;
use pie_model::cuda::OnGpu;
use pie_words::{Slot, Strategy};
use std::ops::Range;
use std::time::Instant;

/// Rounds that are not timed: kernels are compiled in the first, graphs captured in the second.
const WARM_UP: u32 = 2;
/// Places of the edits, in percent of the context.
const PLACES: [u32; 3] = [10, 50, 90];
const STRATEGIES: [(Strategy, &str); 3] =
    [(Strategy::Pie, "pie"), (Strategy::Conflict, "conflict"), (Strategy::Full, "full")];
/// Rotations that are enqueued one behind the other, so that the host's part of one is hidden by the one before.
const TURNS: u32 = 16;

/// A run on its way.
pub struct Measuring<'a> {
    /// What is asked for.
    pub arguments: &'a BenchGpuArgs,
    /// The model on the GPU.
    pub machine: Machine<OnGpu>,
    /// What could not be faster.
    pub floors: Floors,
    /// What was measured so far.
    pub figures: GpuFigures,
}

impl Measuring<'_> {
    /// Everything that there is memory for.
    pub fn all(&mut self) -> Result<(), Failure> {
        for context in self.arguments.contexts.clone() {
            if !self.fits(context, 1) {
                continue;
            }
            self.recompute(context)?;
            for named in edits(context, self.arguments.insert) {
                self.edit(context, &named)?;
            }
            self.settle(context)?;
            self.sessions(context)?;
        }
        Ok(())
    }

    /// Whether there is room for so many sessions; if not, it is said.
    fn fits(&mut self, context: u32, batch: u32) -> bool {
        let needed = u64::from(batch) * u64::from(context + room(self.arguments));
        let fits = needed <= u64::from(self.figures.slots);
        if !fits {
            let slots = self.figures.slots;
            let reason =
                format!("context {context} x {batch}: {needed} KV rows, and {slots} fit the GPU's memory");
            outln!("left out: {reason}");
            self.figures.left_out.push(reason);
        }
        fits
    }

    fn add(&mut self, row: Figure) {
        outln!("{}", row::line(&row));
        self.figures.rows.push(row);
    }

    /// A whole document to its next token, each time in an empty cache.
    fn recompute(&mut self, context: u32) -> Result<(), Failure> {
        let mut seconds = Vec::new();
        for round in 0..WARM_UP + self.arguments.repeat {
            let mut bed = NoiseBed::new(&mut self.machine, self.arguments.seed)?;
            let (elapsed, _) = bed.edit(&TokenEdit::insertion(0, context), Strategy::Full)?;
            if round >= WARM_UP {
                seconds.push(elapsed.as_secs_f64());
            }
        }
        let passes = Pass::recomputing(0, context.into(), self.machine.chunk().into());
        let (what, timed) = ("full recomputation".to_owned(), (median(seconds), context.into()));
        self.add_timed(MeasurementKind::Recompute, what, (context, 1), &passes, timed);
        Ok(())
    }

    /// One edit by all strategies in turns, each taken back before the next.
    fn edit(
        &mut self,
        context: u32,
        NamedEdit { what, at_percent, edit }: &NamedEdit,
    ) -> Result<(), Failure> {
        let mut bed = NoiseBed::new(&mut self.machine, self.arguments.seed)?;
        bed.open(context)?;
        let (back, mut done) = (edit.inverse(), [Done::default(); 3]);
        let mut seconds = [const { Vec::new() }; 3];
        for round in 0..WARM_UP + self.arguments.repeat {
            for (index, (strategy, _)) in STRATEGIES.into_iter().enumerate() {
                let (elapsed, work) = bed.edit(edit, strategy)?;
                bed.edit(&back, Strategy::Pie)?;
                done[index] = work;
                if round >= WARM_UP {
                    seconds[index].push(elapsed.as_secs_f64());
                }
            }
        }
        for (index, (strategy, name)) in STRATEGIES.into_iter().enumerate() {
            let passes = passes_of(edit, context, strategy, self.arguments.step_tokens);
            let (own, full) = (&seconds[index], &seconds[2]);
            let ratios = own.iter().zip(full).map(|(own, full)| own / full).collect();
            let tokens = done[index].encoded.into();
            let timed =
                TimedPasses { floors: &self.floors, passes: &passes, seconds: median(own.clone()), tokens };
            let row = Figure::new(MeasurementKind::Edit, what.clone(), (context, 1), &timed)
                .edit(name, done[index]);
            let below_full = (strategy != Strategy::Full).then(|| 1.0 - median(ratios));
            self.add(Figure { at_percent: *at_percent, below_full, ..row });
        }
        Ok(())
    }

    /// The rotation of all keys of a context, there and back.
    fn settle(&mut self, context: u32) -> Result<(), Failure> {
        let slots: Vec<Slot> = (0..context).map(Slot).collect();
        let far = self.arguments.insert.cast_signed();
        let deltas = [vec![far; slots.len()], vec![-far; slots.len()]];
        let compute = self.machine.compute_mut();
        let mut seconds = Vec::new();
        for round in 0..WARM_UP + self.arguments.repeat {
            compute.gpu().synchronize()?;
            let start = Instant::now();
            for turn in 0..TURNS {
                compute.turn(&slots, &deltas[turn as usize % 2])?;
            }
            compute.gpu().synchronize()?;
            if round >= WARM_UP {
                seconds.push(start.elapsed().as_secs_f64() / f64::from(TURNS));
            }
        }
        let rates = self.floors.rates();
        self.add(Figure::settle(context, context, self.floors.key_bytes(), median(seconds), rates));
        Ok(())
    }

    /// Sessions that are opened one behind the other, and generate together.
    fn sessions(&mut self, context: u32) -> Result<(), Failure> {
        let batches = self.arguments.batches.clone();
        let fitting: Vec<u32> = batches.into_iter().filter(|batch| self.fits(context, *batch)).collect();
        let mut noise = Noise::of(&self.machine, self.arguments.seed)?;
        let (chunk, repeat, generated) = (self.machine.chunk(), self.arguments.repeat, self.arguments.tokens);
        let mut group = Together::new(&mut self.machine);
        let mut measured = Vec::new();
        let mut opened = Vec::new();
        for batch in fitting {
            while opened.len() < batch as usize {
                opened.push(group.open(noise.tokens(context))?.as_secs_f64());
            }
            let mut decoding =
                || group.decode(batch as usize, generated).map(|elapsed| elapsed.as_secs_f64());
            for _ in 0..WARM_UP {
                decoding()?;
            }
            let decoded = (0..repeat).map(|_| decoding()).collect::<Result<Vec<_>, _>>()?;
            measured.push((batch, opened[..batch as usize].iter().sum::<f64>(), median(decoded)));
        }
        for (batch, opening, decoding) in measured {
            let size = (context, batch);
            let tokens = u64::from(batch) * u64::from(context);
            let one = opening_passes(context, chunk);
            let passes: Vec<Pass> = (0..batch).flat_map(|_| one.iter().copied()).collect();
            self.add_timed(
                MeasurementKind::Prefill,
                format!("prefill, batch {batch}"),
                size,
                &passes,
                (opening, tokens),
            );
            let passes = [Pass::decoding(batch.into(), u64::from(context + generated / 2))];
            let seconds = decoding / f64::from(generated);
            self.add_timed(
                MeasurementKind::Decode,
                format!("decode, batch {batch}"),
                size,
                &passes,
                (seconds, batch.into()),
            );
        }
        Ok(())
    }

    fn add_timed(
        &mut self,
        kind: MeasurementKind,
        what: String,
        size: (u32, u32),
        passes: &[Pass],
        (seconds, tokens): (f64, u64),
    ) {
        let timed = TimedPasses { floors: &self.floors, passes, seconds, tokens };
        let row = Figure::new(kind, what, size, &timed);
        self.add(row);
    }
}

/// An edit that is measured.
struct NamedEdit {
    what: String,
    /// Where, if it inserts at one place.
    at_percent: Option<u32>,
    edit: TokenEdit,
}

/// The edits that are measured: the same number of tokens at one place, at three, and deleted.
fn edits(context: u32, tokens: u32) -> Vec<NamedEdit> {
    let at = |percent: u32| (u64::from(context) * u64::from(percent) / 100) as u32;
    let single = |place: u32| NamedEdit {
        what: format!("{tokens} in at {place} %"),
        at_percent: Some(place),
        edit: TokenEdit::insertion(at(place), tokens),
    };
    let share = |index: u32| tokens / 3 + u32::from(index < tokens % 3);
    let piece = |index: u32| SpliceShape { at: at(PLACES[index as usize]), delete: 0, insert: share(index) };
    let edit = TokenEdit((0..3).map(piece).collect());
    let three = NamedEdit { what: format!("{tokens} in at three places"), at_percent: None, edit };
    // So that a short context keeps most of its tokens.
    let delete = tokens.min(context / 4);
    let edit = TokenEdit(vec![SpliceShape { at: at(50), delete, insert: 0 }]);
    let deletion = NamedEdit { what: format!("{delete} out at 50 %"), at_percent: None, edit };
    PLACES.map(single).into_iter().chain([three, deletion]).collect()
}

/// The passes of an edit to the next token.
fn passes_of(edit: &TokenEdit, context: u32, strategy: Strategy, chunk: u32) -> Vec<Pass> {
    let mut came: Vec<Range<u64>> = Vec::new();
    for SpliceShape { at, delete, .. } in edit.inverse().0 {
        came.push(at.into()..u64::from(at) + u64::from(delete));
    }
    let length = edit
        .0
        .iter()
        .fold(u64::from(context), |length, piece| length + u64::from(piece.insert) - u64::from(piece.delete));
    if strategy == Strategy::Full {
        let first = edit.0.first().map_or(length, |piece| piece.at.into());
        return Pass::recomputing(first.min(length - 1), length, chunk.into());
    }
    // The last token is encoded again (W1), unless it came just now.
    if came.last().is_none_or(|range| range.end < length) {
        came.push(length - 1..length);
    }
    vec![Pass::encoding(&came, true)]
}

/// The passes that open a document: none samples.
fn opening_passes(context: u32, chunk: u32) -> Vec<Pass> {
    let (context, chunk) = (u64::from(context), chunk as usize);
    let range = |start: u64| start..context.min(start + chunk as u64);
    (0..context).step_by(chunk).map(|start| Pass::encoding(&[range(start)], false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_encode_what_came_and_the_last_token() {
        for NamedEdit { what, edit, .. } in edits(4096, 64) {
            let rows = |strategy| {
                passes_of(&edit, 4096, strategy, 2048).iter().map(|pass| pass.rows).collect::<Vec<_>>()
            };
            let (pie, full): (u64, &[u64]) = match what.as_str() {
                "64 in at 10 %" => (65, &[2048, 1703]),
                "64 in at 50 %" => (65, &[2048, 64]),
                "64 in at 90 %" => (65, &[474]),
                "64 in at three places" => (65, &[2048, 1703]),
                "64 out at 50 %" => (1, &[1984]),
                other => panic!("{other}"),
            };
            assert_eq!(rows(Strategy::Pie), [pie], "{what}");
            assert_eq!(rows(Strategy::Full), full, "{what}");
        }
        // The last token came just now.
        assert_eq!(
            passes_of(&TokenEdit::insertion(100, 5), 100, Strategy::Pie, 64),
            [Pass::encoding(std::slice::from_ref(&(100..105)), true)]
        );
    }
}
