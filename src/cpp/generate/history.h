// What a model knows of the tokens so far: the features of the past, kept up to date frame by frame.
#pragma once

#include <cstdint>
#include <vector>

#include "generate/recurrent.h"

namespace musicgen::generate {

// The features of one sequence, kept up to date in its state. musicgen_ext.architectures says what each kind means;
// musicgen_reference.generate computes them the plain way.
class History {
 public:
  History() = default;
  History(const RecurrentModel& model, SequenceState& state);

  // Feature ids for the coming frame, as far as the past determines them.
  void look(const std::int32_t* given, int* ids);

  // The features made of others, once these are known.
  void compare(int* ids) const;

  // A token of the coming frame has been drawn: what its slot sounds now.
  int sounding_with(int slot, int token) const;

  // The frame is complete.
  void advance(const std::int32_t* frame);

 private:
  int start_id(int slot) const { return spec_->slots[to_size(slot)].size; }
  std::size_t at(std::int64_t frame, int slot) const { return to_size(frame & mask_) * slots_ + to_size(slot); }
  int interval(const Feature& f, std::int64_t t) const;
  int difference(int slot_a, int a, int slot_b, int b, int limit) const;
  int degree(int slot, int id, int tonic, int offset) const;
  bool is_pitch(int slot, int id) const;
  bool equal(std::int64_t a, std::int64_t b) const;
  void find_match(std::int64_t t);

  const RecurrentModel* model_ = nullptr;
  const RecurrentSpec* spec_ = nullptr;
  SequenceState* state_ = nullptr;
  std::int64_t mask_ = 0;
  std::size_t slots_ = 0;
  int match_length_ = 0;
  std::int64_t match_frame_ = 0;
};

}  // namespace musicgen::generate
